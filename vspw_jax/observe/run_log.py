"""The log file of each process of a run: what it did and when, and the warnings of what it uses."""

import contextlib
import logging
import pathlib
import platform
from collections.abc import Iterator

import jax

LOG = logging.getLogger("vspw_jax")


@contextlib.contextmanager
def run_log(workdir: pathlib.Path) -> Iterator[None]:
    """Within the block, LOG and warnings go to workdir/logs/process_<n>.log, as does an exception that ends it."""
    path = workdir / "logs" / f"process_{jax.process_index()}.log"
    path.parent.mkdir(exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    loggers = (LOG, logging.getLogger())
    for logger in loggers:
        logger.addHandler(handler)
    devices = f"{jax.local_device_count()} of {jax.device_count()} {jax.devices()[0].device_kind}"
    LOG.info("host %s, process %d of %d", platform.node(), jax.process_index(), jax.process_count())
    LOG.info("devices: %s; JAX %s, Python %s", devices, jax.__version__, platform.python_version())
    try:
        yield
    except BaseException as error:
        LOG.info("ends with %s: %s", type(error).__name__, error)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
