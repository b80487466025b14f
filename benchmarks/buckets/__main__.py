"""Disturbs short runs in a bucket, and measures what records in one cost.

    python -m benchmarks.buckets [--kinds=s3,gs] [--kills=20] [--stopped-seconds=20] [--frames=600]

The servers run on this machine; see servers.py. The run is that of `benchmarks.faults`: all that stands around the
network, 40 steps, a checkpoint of 6 MB every 5. Its workdir and its records are in the bucket.

kill -9     ends a start before a random one of its writes reaches the server, or before one that belongs to a
            checkpoint; the next start goes on, on a disk without copies, as another machine would.
stopped     the server closes all connections for a while in the middle of a run.
slow        each request takes half a second more.
decoding    frames of drawn video a second, from the copy of records in a bucket and from this disk, by turns.

Exit status 1 where a run ends with other weights than one on this disk that nothing disturbed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time

from absl import logging

from benchmarks.buckets import servers
from benchmarks.buckets.runs import Runs
from data_prep import generate, vspw
from data_prep.drawing import layouts
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console import errors
from vspw_jax.data import records

ROUNDS = 5
HEIGHT, WIDTH = 480, 853


def kills(runs: Runs, times: int, choose: random.Random) -> tuple[str, bool]:
    """(what was seen, whether a run ended with other weights)."""
    mid_save, completed, wrong = 0, 0, False
    number, workdir = 0, f"{runs.bucket}/killed 0"
    for _ in range(times):
        what, most = ("checkpoints/", 60) if choose.random() < 0.5 else ("", 300)
        status, _ = runs.start(workdir, kill_before=choose.randint(1, most), what=what)
        whole, half = runs.steps(workdir)
        mid_save += bool(half)
        if status == 0:
            completed += 1
            wrong |= runs.weights(workdir) != runs.reference
            number += 1
            workdir = f"{runs.bucket}/killed {number}"
        runs.forget_copies()
    status, _ = runs.start(workdir)
    wrong |= status != 0 or runs.weights(workdir) != runs.reference
    return f"{times} starts, {mid_save} left a half-written checkpoint, {completed + 1} runs completed", wrong


def stopped(runs: Runs, seconds: float) -> tuple[str, bool]:
    """As `kills`, of a run whose server goes away at its third save."""
    workdir, gone = f"{runs.bucket}/stopped", threading.Event()

    def cut(method: str, path: str) -> int:
        if "checkpoints/15/" in path and not gone.is_set():
            gone.set()
            runs.line.is_cut = True
            threading.Timer(seconds, lambda: setattr(runs.line, "is_cut", False)).start()
        return 0

    runs.line.refuse = cut
    status, took = runs.start(workdir)
    runs.line.mend()
    wrong = status != 0 or not gone.is_set() or runs.weights(workdir) != runs.reference
    return f"{seconds:.0f} s without a server: status {status}, {took:.1f} s", wrong


def slow(runs: Runs) -> tuple[str, bool]:
    """As `kills`, of a run whose server is slow."""
    workdir, runs.line.delay = f"{runs.bucket}/slow", 0.5
    status, took = runs.start(workdir)
    runs.line.mend()
    return f"0.5 s more a request: status {status}, {took:.1f} s", status != 0 or (
        runs.weights(workdir) != runs.reference
    )


def plain(runs: Runs) -> tuple[str, bool]:
    """As `kills`, of a run that nothing disturbs."""
    status, took = runs.start(f"{runs.bucket}/plain")
    return f"status {status}, {took:.1f} s", status != 0 or runs.weights(f"{runs.bucket}/plain") != runs.reference


def rate(frames: records.Frames) -> float:
    """Frames and masks decoded a second, by one thread a core."""
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(frames.image_and_label, range(len(frames))))
    return len(frames) / (time.monotonic() - began)


def decoding(runs: Runs, folder: pathlib.Path, count: int) -> str:
    """What the copy of records costs, and at which rate they are decoded."""
    if not (folder / "large_records").exists():
        videos = {"train": count // 20, "val": 1}
        generate.generate(folder / "large", lambda aside: layouts.write_vspw(aside, videos, 20, HEIGHT, WIDTH, 0))
        vspw.convert(folder / "large", folder / "large_records")
    here, address = folder / "large_records", f"{runs.bucket}/large records"
    RemoteFolder(address).upload_all(here, [str(p.relative_to(here)) for p in here.rglob("*") if p.is_file()])
    began = time.monotonic()
    there = records.Frames(address, "train")
    seconds = time.monotonic() - began
    size = sum(path.stat().st_size for path in there.path.glob("*train.array_record*"))
    local, rates = records.Frames(here, "train"), []
    rate(local), rate(there)  # The first turn is for the disk's own cache.
    for _ in range(ROUNDS):
        rates.append((rate(there), rate(local)))
    ratio = statistics.median(of_bucket / of_local for of_bucket, of_local in rates)
    of_bucket, of_local = (statistics.median(column) for column in zip(*rates, strict=True))
    return (
        f"{len(local)} frames of {WIDTH}x{HEIGHT}, {size / 2**20:.0f} MiB: copied once in {seconds:.1f} s; then "
        f"{of_bucket:.0f} frames a second, {of_local:.0f} from this disk: ratio {ratio:.2f}"
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--kinds", default=",".join(servers.KINDS))
    result.add_argument("--kills", type=int, default=20)
    result.add_argument("--stopped-seconds", type=float, default=20)
    result.add_argument("--frames", type=int, default=600)
    result.add_argument("--seed", type=int, default=0)
    return result


def main(arguments: list[str] | None = None) -> bool:
    """Whether anything was lost."""
    flags, wrong = parser().parse_args(arguments), False
    logging.set_verbosity(logging.ERROR)
    for kind in flags.kinds.split(","):
        with servers.running(kind) as line, tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            runs = Runs(kind, line, folder)
            trials = {
                "undisturbed": lambda runs=runs: plain(runs),
                "kill -9": lambda runs=runs: kills(runs, flags.kills, random.Random(flags.seed)),
                "stopped": lambda runs=runs: stopped(runs, flags.stopped_seconds),
                "slow": lambda runs=runs: slow(runs),
            }
            for name, trial in trials.items():
                said, is_wrong = trial()
                print(f"{kind}, {name}: {said}{', OTHER WEIGHTS' if is_wrong else ', the same weights'}", flush=True)
                wrong |= is_wrong
            print(f"{kind}, decoding: {decoding(runs, folder, flags.frames)}", flush=True)
    return wrong


if __name__ == "__main__":
    errors.run_program(lambda: sys.exit(main()))
