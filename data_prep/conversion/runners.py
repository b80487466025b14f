"""Beam's runners: their options as the user types them, and whether they can be reached before a conversion begins."""

import argparse
import contextlib
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vspw_jax.console.errors import UserError

if TYPE_CHECKING:
    from apache_beam import Pipeline
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

LOCAL = "DirectRunner"
DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
NOT_BY_NAME = {"DaskRunner": DASK}
"""Runners that Beam has but does not know by their name."""


def local_arguments(workers: int | None) -> list[str]:
    """Beam's arguments for processes on this machine."""
    return [
        f"--runner={LOCAL}",
        f"--direct_num_workers={workers}",
        "--direct_running_mode=multi_processing",
        "--default_sdk_harness_log_level=ERROR",
    ]


def unknown_to_beam(arguments: Sequence[str]) -> list[str]:
    """Those of some arguments that are no options of Beam."""
    logging.disable(logging.WARNING)  # On import Beam warns that Google's client libraries are missing.
    from apache_beam.options.pipeline_options import PipelineOptions

    with contextlib.suppress(ImportError, AttributeError):  # Where Dask is not installed.
        import apache_beam.runners.dask.dask_runner  # noqa: F401  # It brings options of its own.
    logging.disable(logging.NOTSET)
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for part in PipelineOptions.__subclasses__():
        part._add_argparse_args(known)  # type: ignore[arg-type]  # Beam's parser adds what none of these uses.
    return known.parse_known_args(arguments)[1]


def pipeline_options(arguments: Sequence[str]) -> "PipelineOptions":
    """Beam's options; UserError names a runner or arguments that Beam does not know, or a cluster that is not there."""
    named = [_by_path(argument) for argument in arguments]
    unknown = unknown_to_beam(named)
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.runner import create_runner

    options = PipelineOptions(named)
    runner = options.view_as(StandardOptions).runner
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(
            f"Beam cannot start --runner={runner.rsplit('.', 1)[-1]}: {error}\n"
            "Some need more. Dask: pip install -r requirements-dask.txt. Dataflow: pip install 'apache-beam[gcp]'."
        ) from error
    if unknown:
        raise UserError(f"Neither the converter nor Beam knows {', '.join(unknown)}. See --help.")
    if runner == DASK:
        _check_dask(options)
    return options


@contextlib.contextmanager
def pipeline(options: "PipelineOptions") -> Iterator["Pipeline"]:
    """A pipeline that is run when the block ends, to its end.

    Raises:
      UserError: a runner's options are wrong, or its cluster does not take the work.
    """
    import apache_beam as beam  # Takes two seconds, which a small set does not need to wait.

    made = None
    try:
        made = beam.Pipeline(options=options)
        with made:
            yield made
    except Exception as error:
        has_begun = getattr(made, "result", None) is not None
        if has_begun or options.get_all_options()["runner"] == LOCAL:  # Which begins only when it has ended.
            raise
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            f"Beam could not begin: {reason}\nMend the options of --runner, or start its cluster: docs/data.md says "
            "what each needs. The same command goes on."
        ) from error
    finally:
        if client := getattr(getattr(made, "result", None), "client", None):
            client.close()  # Of Dask; Beam keeps it.


def _by_path(argument: str) -> str:
    option, _, value = argument.partition("=")
    return f"{option}={NOT_BY_NAME[value]}" if option == "--runner" and value in NOT_BY_NAME else argument


def _check_dask(options: "PipelineOptions") -> None:
    """Raises UserError where an address or a file names no Dask scheduler that answers, or one without workers."""
    from apache_beam.runners.dask.dask_runner import DaskOptions
    from dask import distributed

    given = options.view_as(DaskOptions).get_all_options(drop_default=True, current_only=True)
    reached_by = {name: given[name] for name in ("address", "scheduler_file", "timeout") if name in given}
    logging.getLogger("distributed").setLevel(logging.ERROR)
    if not reached_by.keys() - {"timeout"}:
        return  # Dask starts workers on this machine.
    where = reached_by.get("address") or reached_by["scheduler_file"]
    try:
        if "address" not in reached_by:
            pathlib.Path(where).stat()  # Dask would wait for the file.
        with distributed.Client(**reached_by) as client:
            if client.scheduler_info()["workers"]:
                return
            found = "no worker"
    except (OSError, ValueError) as error:
        found = f"no scheduler ({error})"
    raise UserError(
        f"There is {found} at {where}. Start one with dask scheduler and workers with dask worker tcp://HOST:8786, in "
        "this folder and environment, and name it with --dask_client_address=tcp://HOST:8786."
    )
