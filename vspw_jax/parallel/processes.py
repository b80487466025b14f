"""Several processes that train, evaluate and predict together, each with its own devices (`--distributed`).

SLURM, Open MPI or a TPU pod tells JAX the number of each process. Elsewhere three environment variables tell it:
JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID. See launch/README.md.
"""

import contextlib
import itertools
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from vspw_jax.buckets import mirrors
from vspw_jax.console import progress
from vspw_jax.console.errors import UserError, listed
from vspw_jax.files import ownership

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

PATIENCE_SECONDS = 300
"""How long a process waits for the others to start."""
HEARTBEAT_SECONDS = 100
"""After so long a silence of a process the others end; JAX's own number."""
LONGEST_WAIT_SECONDS = 30 * 86400
"""For others that work on longer videos, say; a dead one is noticed long before."""
_MEETINGS = itertools.count()
"""All processes meet in the same order, each time at a place of its own."""


def join(stops_together: bool) -> None:
    """Joins the other processes. Afterwards process 0 alone prints and shows progress. Call it before JAX is used.

    Args:
      stops_together: whether SIGTERM is for `preemption.StopRequest`, by which all stop before the same step. Else it
        ends a process, as it ends one that runs alone.

    Raises:
      UserError: this process cannot find out who the others are, or they do not come.
    """
    found = [name for name in VARIABLES if os.environ.get(name)]
    if 0 < len(found) < len(VARIABLES):
        missing = ", ".join(name for name in VARIABLES if name not in found)
        raise UserError(f"--distributed found {', '.join(found)} in the environment, but not {missing}: set all three.")
    jax.config.update("jax_enable_preemption_service", stops_together)
    try:
        given: dict[str, Any] = {}
        if found:
            given = dict(num_processes=int(os.environ[VARIABLES[1]]), process_id=int(os.environ[VARIABLES[2]]))
            given["cluster_detection_method"] = "deactivate"
        given |= dict(initialization_timeout=PATIENCE_SECONDS, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed could not join the other processes: {str(error).strip().splitlines()[0]}\n"
            f"SLURM, Open MPI and TPU pods need nothing more. Elsewhere set {', '.join(VARIABLES)}, such as "
            "10.0.0.1:8476, 2 and 0, for each process."
        ) from error
    if jax.process_index():
        progress.hide()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def meet(name: str) -> None:
    """Waits until all are here, however long they take; on CPUs an exchange of arrays waits for 30 minutes alone."""
    key = f"{name} {next(_MEETINGS)}"
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=1000 * LONGEST_WAIT_SECONDS)


@contextlib.contextmanager
def first_alone(name: str) -> Iterator[None]:
    """Process 0 runs the block first, alone; the others run it afterwards, and find the work done."""
    if jax.process_index():
        meet(name)
    try:
        yield
    finally:
        if not jax.process_index():
            meet(name)


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
    meet("gathering")
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size)).ravel()
    padded = np.pad(data, (0, sizes.max() - data.size))
    texts = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(text[:size].tobytes()) for text, size in zip(texts, sizes, strict=True)]


def check_same(files: Mapping[str, str], what: str) -> None:
    """Raises UserError, in all processes, where they do not see the same files. All processes must call it.

    Args:
      files: a digest by name.
      what: they are.
    """
    first, *others = gathered(dict(files))
    for number, other in enumerate(others, start=1):
        if unlike := sorted(name for name in first.keys() | other.keys() if first.get(name) != other.get(name)):
            raise UserError(
                f"Processes 0 and {number} see different {what}: {listed(unlike, 3)}. Expected the same files under "
                "the same path for all processes: put them on a file system that all machines mount."
            )


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
