"""Tries `launch/slurm.sh` on a SLURM cluster of this machine alone, which it starts from nothing and ends again.

    apt-get install slurm-wlm munge
    python -m benchmarks.slurm

Two processes train a small network on CPUs: undisturbed; with the end of their time in the middle; with a job in the
middle that takes their place. Each time the weights must be the same, bit for bit, and the losses of all steps. A
mistake of the user's and a killed process must end a job with their status. A study's seeds run as an array.
Exit status 1 where anything is otherwise.
"""

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Sequence

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from benchmarks.ablation.__main__ import asked_to_stop
from benchmarks.slurm import cluster
from benchmarks.slurm.cluster import Cluster
from benchmarks.slurm.jobs import Failed, Jobs
from benchmarks.slurm.scenarios import SCENARIOS
from vspw_jax.console.errors import UserError, run_program

LEAST_STEPS = 100


@contextlib.contextmanager
def kept(folder: str | None) -> Iterator[pathlib.Path]:
    """A folder for all of it: the user's, which stays, or one for the while."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="slurm") as own:
            yield pathlib.Path(own)
        return
    path = pathlib.Path(folder).absolute()
    try:
        path.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{path} exists: expected a new folder. Choose another --output=DIR.") from error
    yield path


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.slurm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--steps", type=int, default=200, help=f"of a training (default 200, at least {LEAST_STEPS})")
    result.add_argument("--output", metavar="DIR", help="a new folder that keeps runs and logs (default: none is kept)")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the file's top."""
    options = parser().parse_args(arguments)
    if options.steps < LEAST_STEPS:
        raise UserError(f"--steps={options.steps}: expected {LEAST_STEPS} or more, to be stopped in the middle.")
    cluster.check_installed()
    with asked_to_stop(), kept(options.output) as folder, Cluster(folder / "slurm", cpus=2) as slurm:
        print(slurm.said("sinfo", "--version").strip(), flush=True)
        (folder / "jobs").mkdir()
        jobs = Jobs(slurm, folder / "jobs", options.steps)
        try:
            for name, scenario in SCENARIOS.items():
                print(f"{name}: {scenario(jobs)}", flush=True)
        except (Failed, TimeoutError) as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    run_program(main)
