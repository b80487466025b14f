#!/usr/bin/env bash
# Trains on Kubernetes as a JobSet: one process on each node, with all of the node's GPUs. The image is built of
# launch/Dockerfile; --claim names the volume, mounted by all at /vspw, that holds data and workdir. Where these are in
# buckets, --claim= leaves the volume out, and --account names the service account that may read and write there. After
# SIGTERM a pod has --grace seconds to save.
#
#   git archive HEAD | docker build --file launch/Dockerfile --tag REGISTRY/vspw_jax - && docker push REGISTRY/vspw_jax
#   launch/kubernetes.sh --image=REGISTRY/vspw_jax --nodes=2 --gpus=8 --claim=vspw -- --config=configs/nce.py \
#     --workdir=/vspw/runs/nce --config.data.records=/vspw/records --config.train.batch=16 --config.loss.nce.groups=16
set -euo pipefail
source "$(dirname "$0")/common.sh"

name=vspw
image=
nodes=1
gpus=8
claim=vspw
account=default
grace=120
options="name image nodes gpus claim account grace"
parse "$@"
require --config=configs/nce.py
[[ $image ]] || fail "--image=... is missing."
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || fail "--name=$name: expected small letters, digits and hyphens."
for number in "$nodes" "$gpus" "$grace"; do
  is_number "$number" || fail "--nodes, --gpus (a node) and --grace are numbers from 1 on, not $number."
done

# The program's arguments as YAML strings; in double quotes two characters need a backslash.
list=
for argument in --distributed --stopped_status=75 "${arguments[@]}"; do
  argument=${argument//\\/\\\\}
  list+="                    - \"${argument//\"/\\\"}\""$'\n'
done

manifest=$(<"$(dirname "$0")/jobset.yaml")
if [[ ! $claim ]]; then
  manifest=${manifest/$'                    - name: data\n                      mountPath: /vspw\n'/}
  manifest=${manifest/$'                - name: data\n                  persistentVolumeClaim:\n                    claimName: CLAIM\n'/}
fi
manifest=${manifest//NAME/"$name"}
manifest=${manifest//IMAGE/"$image"}
manifest=${manifest//NODES/"$nodes"}
manifest=${manifest//GPUS/"$gpus"}
manifest=${manifest//CLAIM/"$claim"}
manifest=${manifest//ACCOUNT/"$account"}
manifest=${manifest//GRACE/"$grace"}
manifest=${manifest//"                    - ARGUMENTS"/"${list%$'\n'}"}
if [[ $dry_run ]]; then
  echo "kubectl apply --filename=- <<'END'"
  echo "$manifest"
  echo END
else
  kubectl apply --filename=- <<<"$manifest"
fi
