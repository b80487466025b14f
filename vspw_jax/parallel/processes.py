"""Several processes that train and evaluate together, each with its own devices (`--distributed`).

Which of them a process is, JAX finds out from SLURM, Open MPI or a TPU pod; elsewhere three environment variables say
it: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. See launch/README.md.
"""

import contextlib
import json
import os
import sys
import traceback

import jax
import numpy as np
from jax.experimental import multihost_utils

from vspw_jax.console import progress
from vspw_jax.console.errors import UserError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

PATIENCE_SECONDS = 300
"""For the others to start."""


def join():
    """Joins the other processes; process 0 alone then prints and shows progress. Comes before JAX looks for devices.

    Raises:
      UserError: it cannot be told who the others are, or they do not come.
    """
    found = [name for name in VARIABLES if os.environ.get(name)]
    if 0 < len(found) < len(VARIABLES):
        missing = ", ".join(name for name in VARIABLES if name not in found)
        raise UserError(f"--distributed found {', '.join(found)} in the environment, but not {missing}: set all three.")
    try:
        given = {}
        if found:
            given = dict(num_processes=int(os.environ[VARIABLES[1]]), process_id=int(os.environ[VARIABLES[2]]))
            given["cluster_detection_method"] = "deactivate"
        jax.distributed.initialize(initialization_timeout=PATIENCE_SECONDS, **given)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed could not join the other processes: {str(error).strip().splitlines()[0]}\n"
            f"Neither SLURM, Open MPI nor a TPU pod need more; elsewhere set {', '.join(VARIABLES)}, such as "
            "10.0.0.1:8476, 2 and 0, for each process."
        ) from error
    if jax.process_index():
        progress.hide()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def first_alone(name):
    """Process 0 does what is in the block by itself; the others follow when it has, and find it done."""
    several = jax.process_count() > 1
    if several and jax.process_index():
        multihost_utils.sync_global_devices(name)
    try:
        yield
    finally:
        if several and not jax.process_index():
            multihost_utils.sync_global_devices(name)


def gathered(value):
    """A value of JSON from every process, in their order; all call it."""
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size)).ravel()
    padded = np.pad(data, (0, sizes.max() - data.size))
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(text[:size].tobytes()) for text, size in zip(texts, sizes, strict=True)]


@contextlib.contextmanager
def failing_at_once():
    """One of several processes that fails ends without waiting for the others, who wait for it: they then fail too."""
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized() or jax.process_count() == 1:
            raise
        status = error.code if isinstance(error, SystemExit) else 1
        if status in (None, 0):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
