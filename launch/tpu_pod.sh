#!/usr/bin/env bash
# Trains on a slice of a Cloud TPU pod: makes it unless it is there, brings this commit to all of its workers, installs
# it, and starts one process on each. The same command goes on after a preemption. --workdir and the data must lie in a
# bucket, or on a file system that all workers mount; --setup=COMMAND is run on each of them before the training, to mount
# it.
#
#   launch/tpu_pod.sh --name=vspw --zone=us-west4-a --type=v5litepod-64 --setup='sudo mount 10.0.0.2:/vspw /vspw' -- \
#     --config=configs/nce.py --workdir=/vspw/runs/nce --config.data.records=/vspw/records --config.train.batch=64 \
#     --config.loss.nce.groups=64 --config.model.dtype=bfloat16 --config.sharding.fsdp=16
set -euo pipefail
source "$(dirname "$0")/common.sh"

name=vspw
zone=
type=v5litepod-64
project=
setup=true
spot=no
options="name zone type project setup spot"
parse "$@"
require --config=configs/nce.py
[[ $zone ]] || fail "--zone=... is missing."
case $type in
  v4-*) version='tpu-ubuntu2204-base' ;;
  v5litepod-*) version=v2-alpha-tpuv5-lite ;;
  v5p-*) version=v2-alpha-tpuv5 ;;
  v6e-*) version=v2-alpha-tpuv6e ;;
  *) fail "--type=$type: expected v4-*, v5litepod-*, v5p-* or v6e-*." ;;
esac

tpu=(gcloud compute tpus tpu-vm)
place=("--zone=$zone")
if [[ $project ]]; then place+=("--project=$project"); fi
create=("${tpu[@]}" create "$name" "${place[@]}" "--accelerator-type=$type" "--version=$version")
if [[ $spot == yes ]]; then create+=(--spot); fi
on_all=("${tpu[@]}" ssh "$name" "${place[@]}" --worker=all)

program="cd vspw_jax && JAX_PLATFORMS=tpu exec venv/bin/python -m vspw_jax.main --distributed $(show "${arguments[@]}")"
install='mkdir -p vspw_jax && tar -xf vspw_jax.tar -C vspw_jax && cd vspw_jax && python3 -m venv venv &&
venv/bin/pip install --quiet -r requirements.txt -r requirements-buckets.txt "jax[tpu]"'

if [[ $dry_run ]] || ! "${tpu[@]}" describe "$name" "${place[@]}" >/dev/null 2>&1; then
  run "${create[@]}"
fi
archive=$([[ $dry_run ]] && echo /tmp/vspw_jax.tar || echo "$(mktemp -d)/vspw_jax.tar")
run git -C "$(dirname "$0")/.." archive --format=tar "--output=$archive" HEAD
run "${tpu[@]}" scp "$archive" "$name:vspw_jax.tar" "${place[@]}" --worker=all
run "${on_all[@]}" "--command=$install"
run "${on_all[@]}" "--command=$setup"
run "${on_all[@]}" "--command=$program"
