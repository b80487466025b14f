#!/usr/bin/env bash
# Submits a training to SLURM: one process for each GPU of each node. Two minutes before its time is over every process
# gets SIGTERM, saves and ends; the next of --jobs, which wait for each other, goes on from there.
#
#   launch/slurm.sh --nodes=2 --gpus=8 --time=24:00:00 --jobs=3 --partition=gpu -- --config=configs/nce.py \
#     --workdir=/shared/runs/nce --config.train.batch=16 --config.loss.nce.groups=16
set -euo pipefail
source "$(dirname "$0")/common.sh"

nodes=1
gpus=8
cpus=8
time=24:00:00
jobs=1
partition=
account=
name=vspw_jax
python=python
options="nodes gpus cpus time jobs partition account name python"
parse "$@"
for number in "$nodes" "$gpus" "$cpus" "$jobs"; do
  is_number "$number" || fail "--nodes, --gpus (a node), --cpus (a GPU) and --jobs are numbers from 1 on, not $number."
done

step=(srun --kill-on-bad-exit=1 "$python" -m vspw_jax.main --distributed "${arguments[@]}")
submit=(sbatch "--job-name=$name" --dependency=singleton "--nodes=$nodes" "--ntasks-per-node=$gpus"
  "--gpus-per-node=$gpus" "--cpus-per-task=$cpus" "--time=$time" --signal=TERM@120 --requeue --open-mode=append
  "--output=$name-%j.log" "--export=ALL,JAX_PLATFORMS=cuda")
if [[ $partition ]]; then submit+=("--partition=$partition"); fi
if [[ $account ]]; then submit+=("--account=$account"); fi
for ((job = 0; job < jobs; job++)); do
  run "${submit[@]}" --wrap "$(show "${step[@]}")"
done
