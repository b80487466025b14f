"""Several processes that train and evaluate together, each with its own devices (`--distributed`).

SLURM, Open MPI or a TPU pod tells JAX the number of each process. Elsewhere three environment variables tell it:
JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. See launch/README.md.
"""

import contextlib
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from vspw_jax.buckets import mirrors
from vspw_jax.console import progress
from vspw_jax.console.errors import UserError
from vspw_jax.files import ownership

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

PATIENCE_SECONDS = 300
"""How long a process waits for the others to start."""


def join() -> None:
    """Joins the other processes. Afterwards process 0 alone prints and shows progress. Call it before JAX is used.

    Raises:
      UserError: this process cannot find out who the others are, or they do not come.
    """
    found = [name for name in VARIABLES if os.environ.get(name)]
    if 0 < len(found) < len(VARIABLES):
        missing = ", ".join(name for name in VARIABLES if name not in found)
        raise UserError(f"--distributed found {', '.join(found)} in the environment, but not {missing}: set all three.")
    try:
        given: dict[str, Any] = {}
        if found:
            given = dict(num_processes=int(os.environ[VARIABLES[1]]), process_id=int(os.environ[VARIABLES[2]]))
            given["cluster_detection_method"] = "deactivate"
        jax.distributed.initialize(initialization_timeout=PATIENCE_SECONDS, **given)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed could not join the other processes: {str(error).strip().splitlines()[0]}\n"
            f"SLURM, Open MPI and TPU pods need nothing more. Elsewhere set {', '.join(VARIABLES)}, such as "
            "10.0.0.1:8476, 2 and 0, for each process."
        ) from error
    if jax.process_index():
        progress.hide()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@contextlib.contextmanager
def first_alone(name: str) -> Iterator[None]:
    """Process 0 runs the block first, alone; the others run it afterwards, and find the work done."""
    several = jax.process_count() > 1
    if several and jax.process_index():
        multihost_utils.sync_global_devices(name)
    try:
        yield
    finally:
        if several and not jax.process_index():
            multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def owned(folder: pathlib.Path | str, flag: str) -> Iterator[Callable[[], None]]:
    """Within the block a folder is these processes' alone; the first one owns it. See `ownership.owned`.

    Yields:
      `Ownership.check`.

    Raises:
      UserError: another program owns it; in all processes.
    """
    refusal, check = "", lambda: None
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                check = stack.enter_context(ownership.owned(folder, flag)).check
            except UserError as error:
                refusal = str(error)
        if jax.process_count() > 1:
            refusal = gathered(refusal)[0]
        if refusal:
            raise UserError(refusal)
        mirror = mirrors.of(folder)
        if mirror:
            mirror.begin()  # The owner's has begun; the others send what they write too.
        yield check


def gathered(value: Any) -> list[Any]:
    """A value of JSON from every process, in their order. All processes must call it."""
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size)).ravel()
    padded = np.pad(data, (0, sizes.max() - data.size))
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(text[:size].tobytes()) for text, size in zip(texts, sizes, strict=True)]


@contextlib.contextmanager
def failing_at_once() -> Iterator[None]:
    """Where one of several processes fails, it ends at once and does not wait for the others; then they fail too."""
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
        os._exit(status if isinstance(status, int) else 1)
