#!/usr/bin/env bash
# Several processes on this machine: one for each GPU, or on CPUs for a trial. For one process on all GPUs none of this
# is needed: python -m vspw_jax.main takes all that it sees.
#
#   launch/local.sh --processes=8 --platform=cuda -- --config=configs/nce.py --config.train.batch=8 --config.loss.nce.groups=8
#   launch/local.sh --processes=2 --platform=cpu --dry-run -- --config=configs/nce.py:demo
set -euo pipefail
source "$(dirname "$0")/common.sh"

processes=2
platform=cuda
port=8476
python=python
options="processes platform port python"
parse "$@"
require --config=configs/nce.py
is_number "$processes" || fail "--processes=$processes: expected a number from 1 on."
[[ $platform == cuda || $platform == cpu ]] || fail "--platform=$platform: expected cuda or cpu."

started=()
# SIGTERM asks every process for a saved state and an end; so does Ctrl-C, which reaches them by itself.
trap 'for process in "${started[@]}"; do kill -TERM "$process" 2>/dev/null || true; done' TERM
trap 'for process in "${started[@]}"; do kill -KILL "$process" 2>/dev/null || true; done' EXIT

for ((number = 0; number < processes; number++)); do
  environment=("JAX_PLATFORMS=$platform" "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_NUM_PROCESSES=$processes"
    "JAX_PROCESS_ID=$number")
  if [[ $platform == cuda ]]; then environment+=("JAX_LOCAL_DEVICE_IDS=$number"); fi
  command=(env "${environment[@]}" "$python" -m vspw_jax.main --distributed "${arguments[@]}")
  if [[ $dry_run ]]; then
    show "${command[@]}"
  else
    "${command[@]}" &
    started+=($!)
  fi
done

status=0
for process in "${started[@]}"; do
  # A trapped signal ends a wait: what it waited for is waited for again.
  while true; do
    code=0
    wait "$process" || code=$?
    kill -0 "$process" 2>/dev/null || break
  done
  if [[ $status == 0 ]]; then status=$code; fi
done
exit "$status"
