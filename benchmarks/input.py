"""The training stream beside its limit and beside a PyTorch DataLoader: clips/s, processor time, memory.

    python -m data_prep.generate --output=data/input/vspw --train=8 --val=1 --frames=8 --height=480 --width=853
    python -m data_prep.vspw --source=data/input/vspw --output=data/input/records
    python -m benchmarks.input --records=data/input/records [--frames=2] [--crop=480] [--batch=4] [--rounds=5] [--plain]

Four ways to go through the same records, each in a process of its own, in turn; medians of the rounds are printed:

    decode    JPEG and PNG of as many frames, by OpenCV and Pillow, and nothing else: the limit; --threads threads
    threads   pipeline.training_batches with configs/baseline.py's augmentation, in threads
    workers   the same in processes (data.workers)
    torch     a DataLoader in as many processes, with mmseg's operations written with OpenCV; see torch_input.py

Each runs with 1 and with 2 threads or processes. "CPU ms" is the processor time of a clip, all processes together: it
holds where other work shares the cores, and its inverse is clips/s per core. "MiB" adds up the processes' peaks; pages
that they share count in each. The aims: at least 0.70 of decode, 1.5 times torch. Without torch its row is left out.
"""

import argparse
import concurrent.futures
import importlib.util
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import cv2

from configs import baseline
from vspw_jax.console.errors import run_program
from vspw_jax.data import clips, pipeline, records
from vspw_jax.files import mask_png

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def processes():
    """This process and those that it started, by their folders in /proc."""
    own = pathlib.Path("/proc/self")
    children = " ".join(path.read_text() for path in own.glob("task/*/children")).split()
    return [own, *(pathlib.Path("/proc") / child for child in children)]


def processor_seconds():
    """Processor time of all processes so far."""
    fields = [(process / "stat").read_text().rpartition(")")[2].split() for process in processes()]
    return sum(int(user) + int(system) for user, system in (process[11:13] for process in fields)) / CLOCK_TICKS


def peak_mebibytes():
    """The sum of all processes' largest memory."""
    lines = [line for process in processes() for line in (process / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def data_config(flags):
    """The baseline's data on the benchmark's records."""
    config = baseline.get_config().data
    config.update(records=flags.records, frames=flags.frames, epoch="frame", prefetch=2 * flags.parallel)
    config.augment.photometric = not flags.plain
    return config


def decoded(flags):
    """Batches of decoded frames, without end."""
    cv2.setNumThreads(1)
    frames = records.Frames(flags.records, "train")
    epoch = clips.FrameEpoch(frames.videos)

    layout = clips.Layout(flags.frames)

    def decode(number):
        for record in layout.records(*epoch.choose(number % len(epoch), None), None):
            fields = frames[record]
            records.decode_image(fields["image_jpeg"])
            mask_png.decode(fields["mask_png"])

    with concurrent.futures.ThreadPoolExecutor(flags.parallel) as pool:
        waiting = [pool.submit(decode, number) for number in range(2 * flags.batch)]
        for number in itertools.count(len(waiting), flags.batch):
            yield [future.result() for future in waiting[: flags.batch]]
            waiting = waiting[flags.batch :] + [pool.submit(decode, number + clip) for clip in range(flags.batch)]


def streamed(flags):
    """Our batches; in threads or in processes of one thread."""
    config = data_config(flags)
    config.workers = flags.parallel if flags.way == "workers" else 0
    config.threads = flags.parallel
    return pipeline.training_batches(config, flags.batch, (flags.crop, flags.crop), 0)


def loaded(flags):
    """PyTorch's batches."""
    from benchmarks import torch_input

    return torch_input.batches(data_config(flags), flags.batch, (flags.crop, flags.crop), flags.parallel)


WAYS = {"decode": decoded, "threads": streamed, "workers": streamed, "torch": loaded}


def measure(flags):
    """Goes one way in this process and prints what it took."""
    stream = WAYS[flags.way](flags)
    batches = iter(stream)
    for _ in range(2 * flags.parallel + 2):  # Starting up and filling what reads ahead.
        next(batches)
    started, processor = time.perf_counter(), processor_seconds()
    for _ in range(flags.steps):
        next(batches)
    number = flags.steps * flags.batch
    result = {
        "clips/s": number / (time.perf_counter() - started),
        "CPU ms": 1000 * (processor_seconds() - processor) / number,
        "MiB": peak_mebibytes(),
    }
    if flags.way != "torch":
        stream.close()
    print(json.dumps(result))


def measured(flags, way, parallel):
    """`measure` in a process of its own."""
    options = {name: getattr(flags, name) for name in ("records", "frames", "crop", "batch", "steps")}
    command = [sys.executable, "-m", "benchmarks.input", f"--way={way}", f"--parallel={parallel}"]
    command += [f"--{name}={value}" for name, value in options.items()] + ["--plain"] * flags.plain
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1])


def compare(flags):
    ways = [way for way in WAYS if way != "torch" or importlib.util.find_spec("torch")]
    results = {case: [] for case in itertools.product(ways, (1, 2))}
    for _ in range(flags.rounds):
        for case, found in results.items():
            found.append(measured(flags, *case))
    medians = {
        case: {name: statistics.median(one[name] for one in found) for name in found[0]}
        for case, found in results.items()
    }
    print(f"clips of {flags.frames} frames, crop {flags.crop}, batches of {flags.batch}, {os.cpu_count()} cores")
    print("          clips/s 1       2  growth   CPU ms  of limit  x torch   MiB 1       2")
    for way in ways:
        one, two = medians[way, 1], medians[way, 2]
        versus = [
            medians[other, 1]["CPU ms"] / one["CPU ms"] if other in ways else float("nan")
            for other in ("decode", "torch")
        ]
        print(
            f"{way:<8} {one['clips/s']:>10.1f} {two['clips/s']:>7.1f} {two['clips/s'] / one['clips/s']:>7.2f} "
            f"{one['CPU ms']:>8.1f} {versus[0]:>9.2f} {versus[1]:>8.2f} {one['MiB']:>7.0f} {two['MiB']:>7.0f}"
        )


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--records", required=True)
    result.add_argument("--frames", type=int, default=2, help="of a clip")
    result.add_argument("--crop", type=int, default=480)
    result.add_argument("--batch", type=int, default=4, help="clips")
    result.add_argument("--steps", type=int, default=40, help="batches that are timed")
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--plain", action="store_true", help="without photometric distortion")
    result.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    result.add_argument("--parallel", type=int, default=1, help=argparse.SUPPRESS)
    return result


def main():
    flags = parser().parse_args()
    (measure if flags.way else compare)(flags)


if __name__ == "__main__":
    run_program(main)
