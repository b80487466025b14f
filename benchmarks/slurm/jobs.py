"""Jobs of `launch/slurm.sh` on a cluster, and what came of them."""

import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from benchmarks.ablation.versions import ROOT
from benchmarks.slurm.cluster import Cluster, wait_until
from benchmarks.slurm.recipe import FIELDS
from configs import upernet
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import trained

LONG = 1200
"""Seconds that anything may take on a busy machine."""
PROGRAM = ROOT / "tests" / "parallel" / "program.py"
"""`vspw_jax.main` with a network that compiles in a second."""
SECONDS_A_BATCH = 0.3
"""So that there is a middle in which a run can be stopped, however quick the machine is."""


class Failed(Exception):
    """Something was not as it should be."""


def expect(what: str, found: object, expected: object) -> None:
    """Raises Failed where they differ."""
    if found != expected:
        raise Failed(f"{what}: found {found!r}, expected {expected!r}")


class Jobs:
    """Jobs on a cluster, each with a workdir of its name.

    Args:
      folder: for runs and logs.
      steps: of a training.
    """

    def __init__(self, slurm: Cluster, folder: pathlib.Path, steps: int) -> None:
        self.slurm, self.folder, self.steps = slurm, folder, steps
        more = {"PYTHONPATH": str(ROOT), "SECONDS_A_BATCH": str(SECONDS_A_BATCH)}
        self._environment = slurm.environment | more
        data = folder / "data"
        own = {"data.records": data / "records", "data.generate.records": data / "records"}
        own |= {"data.generate.source": data / "vspw"}
        self._fields = {**FIELDS, **{name: str(value) for name, value in own.items()}}
        self._fields |= {"train.steps": steps, "run.save_every": steps, "run.afterwards": ()}

    def python(self, name: str, program: Sequence[str | pathlib.Path], first: str = "") -> pathlib.Path:
        """A file to take for Python: runs `first` in a shell, then a program in place of the module that it is told."""
        path = self.folder / name
        words = " ".join(f'"{word}"' for word in (sys.executable, *program))
        path.write_text(f'#!/bin/sh\nshift 2\n{first}\nexec {words} "$@"\n')
        path.chmod(0o755)
        return path

    def submit(self, options: Sequence[str], arguments: Sequence[str]) -> str:
        """The number of a job of `launch/slurm.sh`."""
        command = [str(ROOT / "launch" / "slurm.sh"), "--platform=cpu", "--cpus=1", *options, "--", *arguments]
        ended = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)
        if ended.returncode:
            raise Failed(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr}")
        return ended.stdout.split()[-1]

    def train(self, name: str, *options: str, more: Sequence[str] = (), first: str = "") -> str:
        """The number of a job that trains with two processes, each of which runs `first` in a shell before."""
        fields = [f"--config.{field}={value}" for field, value in self._fields.items()]
        flags = [f"--config={ROOT}/configs/upernet.py:demo", *fields, f"--workdir={self.folder / name}", *more]
        own = [f"--python={self.python(f'python_{name}', [PROGRAM], first)}", "--processes=2", f"--name={name}"]
        return self.submit([*own, *options], flags)

    def log(self, name: str, number: str) -> str:
        """What a job has said."""
        path = self.folder / f"{name}-{number}.log"
        return path.read_text() if path.exists() else ""

    def losses(self, name: str) -> dict[int, float]:
        """By step, as far as a run has come."""
        path = self.folder / name / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        return {line["step"]: line["loss"] for line in whole if "loss" in line}

    def reaches(self, name: str, step: int) -> None:
        """Returns once a run has come to a step."""
        wait_until(lambda: max(self.losses(name), default=0) >= step, LONG, f"{name} reaches step {step}")

    def weights(self, name: str) -> Mapping[str, np.ndarray]:
        """Of a run's end, by name."""
        if "program" not in sys.modules:  # It puts its network in the place of UperNet's.
            spec = importlib.util.spec_from_file_location("program", PROGRAM)
            sys.modules["program"] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules["program"])
        config = upernet.get_config("demo")
        config.update_from_flattened_dict(self._fields)
        found = trained.weights(config, self.folder / name, make_mesh()).weights
        leaves, _ = jax.tree_util.tree_flatten_with_path(found)
        return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}

    def is_done(self, name: str, number: str, starts: int) -> None:
        """Raises Failed unless a job trains to its end in so many starts."""
        job = self.slurm.ended(number, LONG)
        found = job["JobState"], job["ExitCode"], int(job["Restarts"]) + 1
        end = self.log(name, number)[-2000:]
        expect(f"State, status and starts of {name}, whose log ends with\n{end}\n", found, ("COMPLETED", "0:0", starts))
        expect(f"The steps of {name}", sorted(self.losses(name)), list(range(1, self.steps + 1)))

    def is_same(self, name: str, other: str) -> None:
        """Raises Failed unless two runs have the same losses and the same weights, bit for bit."""
        expect(f"The losses of {name}", self.losses(name), self.losses(other))
        own, others = self.weights(name), self.weights(other)
        unlike = [key for key in own if own[key].tobytes() != others[key].tobytes()]
        expect(f"Weights in which {name} and {other} differ", unlike, [])
