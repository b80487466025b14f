#!/usr/bin/env bash
# Submits a training to SLURM: one process for each GPU of each node, or on CPUs for a trial. --grace seconds before its
# time is over every process gets SIGTERM, saves and ends; the job is then queued again and goes on, until it has been
# started --starts times. So it does after a preemption.
#
#   launch/slurm.sh --nodes=2 --processes=8 --time=24:00:00 --partition=gpu -- --config=configs/nce.py \
#     --workdir=/shared/runs/nce --config.train.batch=16 --config.loss.nce.groups=16
#
# With --seeds=N it submits a study's seeds 0 to N-1, each as a job of one process; benchmarks/ablation/ explains them.
#
#   launch/slurm.sh --seeds=5 --time=4:00:00 --partition=gpu -- --study=contrast --output=/shared/runs/ablation
set -euo pipefail
source "$(dirname "$0")/common.sh"

nodes=1
processes=
platform=cuda
cpus=8
time=24:00:00
starts=20
grace=120
seeds=
partition=
account=
name=vspw_jax
python=python
options="nodes processes platform cpus time starts grace seeds partition account name python"
parse "$@"
[[ $platform == cuda || $platform == cpu ]] || fail "--platform=$platform: expected cuda or cpu."
if [[ $seeds ]]; then
  require --study=contrast
  is_number "$seeds" || fail "--seeds=$seeds: expected a number from 1 on."
  [[ $nodes$processes == 1 ]] || fail "Each of --seeds is a job of one process: leave out --nodes and --processes."
  processes=1
  program=("$python" -m benchmarks.ablation "--seeds=$seeds" "${arguments[@]}")
  which=("--array=0-$((seeds - 1))" "--output=$name-%A_%a.log")
else
  require --config=configs/nce.py
  processes=${processes:-8}
  program=("$python" -m vspw_jax.main --distributed --stopped_status=75 "${arguments[@]}")
  which=("--output=$name-%j.log")
fi
for number in "$nodes" "$processes" "$cpus" "$starts" "$grace"; do
  is_number "$number" ||
    fail "--nodes, --processes (a node), --cpus (a process), --starts and --grace are numbers from 1 on, not $number."
done

submit=(sbatch "--job-name=$name" "${which[@]}" "--nodes=$nodes" "--ntasks-per-node=$processes" "--cpus-per-task=$cpus"
  "--time=$time" "--signal=TERM@$grace" --requeue --open-mode=append "--export=ALL,JAX_PLATFORMS=$platform")
if [[ $platform == cuda ]]; then submit+=("--gpus-per-node=$processes"); fi
if [[ $partition ]]; then submit+=("--partition=$partition"); fi
if [[ $account ]]; then submit+=("--account=$account"); fi
run "${submit[@]}" "$(dirname "$0")/slurm_job.sh" "$starts" "${program[@]}"
