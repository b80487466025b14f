#!/usr/bin/env bash
# The job that launch/slurm.sh submits: the number of starts that it may have, then the command of each process.
set -uo pipefail
starts=$1
shift
job=$SLURM_JOB_ID
if [[ ${SLURM_ARRAY_TASK_ID-} ]]; then
  job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID # One of an array has the array's number, which means all of them.
  set -- "$@" "--seed=$SLURM_ARRAY_TASK_ID"
fi

# Whoever SIGTERM ends, saved or before there was anything to save, ends with 75. Of several processes srun reports the
# highest status: those that only follow a failing one, by a signal, are 1, so that a mistake of the user's stays 2.
# shellcheck disable=SC2016 # For the shells of the processes.
each='trap : TERM; "$@"; code=$?
if ((code == 130 || code == 143)); then exit 75; fi
exit $((code > 128 ? 1 : code))'
# JAX needs up to 100 s to tell processes that another one is gone; --kill-on-bad-exit would hide the first one's status.
srun --wait=600 "--cpus-per-task=$SLURM_CPUS_PER_TASK" bash -c "$each" - "$@"
code=$?

if [[ $code == 75 ]] && ((${SLURM_RESTART_COUNT:-0} + 1 < starts)); then
  echo "Asked to stop: the job is queued again, after start $((${SLURM_RESTART_COUNT:-0} + 1)) of $starts."
  scontrol requeue "$job"
fi
exit "$code"
