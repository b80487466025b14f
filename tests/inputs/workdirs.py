"""Workdirs that another program owns or owned, whose files a power cut damaged, or that hold what they should not."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from vspw_jax.files import ownership

OWNER = """
import sys
from vspw_jax.files import ownership
with ownership.owned(sys.argv[1], "--workdir=DIR"):
    print("owned", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def owned_by_a_process(folder):
    """The process that owns a folder until the block ends."""
    root = pathlib.Path(__file__).parents[2]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)})
    with subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], **pipes) as process:
        assert process.stdout.readline() == b"owned\n"
        yield process
        process.kill()


def left_by_a_killed_process(folder):
    """A folder whose owner is gone."""
    with owned_by_a_process(folder) as process:
        process.kill()
    return process.pid


def owned_from_another_host(folder):
    """A folder that host "elsewhere" owns; whoever renews the returned lock is that owner."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["filelock/2", "pid=7", "host=elsewhere", "mode=lease", "token=1f", f"duration={ownership.LEASE_SECONDS}"]
    (folder / ownership.LOCK).write_text("".join(f"{line}\n" for line in lines))
    note = ownership.Owner("elsewhere", 7, "2026-11-25 10:00:00 +0000", "python -m vspw_jax.main", "elsewhere", "1f")
    (folder / ownership.NOTE).write_text(json.dumps(vars(note)))
    return folder / ownership.LOCK


def make_read_only(disk):
    """Mounts a disk anew so that nothing can be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def rename_checkpoint(workdir, step, other):
    """Gives a step's checkpoint the name of another step."""
    (workdir / "checkpoints" / str(step)).rename(workdir / "checkpoints" / str(other))


def put_nan(weights, path):
    """A NaN in the array at a path of names joined by slashes, in nested dicts of arrays."""
    *names, last = path.split("/")
    for name in names:
        weights = weights[name]
    weights[last] = weights[last].at[(0,) * weights[last].ndim].set(np.nan)


DAMAGED_JSON = {
    "nothing": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "zeros": lambda text: "\0" * len(text),
    "other JSON": lambda _: "[]",
}
"""What a power cut, or an editor, makes of a file of JSON."""

LINES = [f'{{"step": {step}, "loss": 0.{step}}}' for step in (1, 2, 3)]

DAMAGED_FIGURES = {
    "zeros at the end": (LINES[0] + "\n" + "\0" * 300, [1]),
    "zeros alone": ("\0" * 4096, []),
    "half a line": ("\n".join(LINES[:2]) + '\n{"step": 3, "lo', [1, 2]),
    "half a line joined to the next": (f'{LINES[0]}\n{{"step": 2, "lo{LINES[2]}\n', [1, 3]),
    "a line without a step": (f'{LINES[0]}\n{{"loss": 0.5}}\n{LINES[2]}\n', [1, 3]),
    "other JSON": (f'[1, 2]\nnull\n{{"step": "two"}}\n{LINES[2]}\n', [3]),
    "bytes that are no text": (LINES[0].encode() + b"\n\xff\xfe{\xff}\n" + LINES[1].encode(), [1, 2]),
}
"""metrics.jsonl as a power cut may leave it, and the steps that can still be read."""

JOINED_FIGURES = LINES[0] + LINES[1] + "\n" + LINES[2]
"""Lines without an end between them; all of them can be read."""
