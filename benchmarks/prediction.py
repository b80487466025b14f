"""Predicting a video: peak memory of a short and a long one, frames/s with and without overlap.

    python -m benchmarks.prediction [--recipe=nce] [--frames=50,1000] [--rounds=3]

The demo's network with random weights predicts files of drawn noise of the demo's crop. Memory is what a process of its
own gains at the peak over what it held once the program was compiled; the aim is that it does not grow with the
video. Overlap is --mode=predict as it is: reading, the network and writing go on at the same time; without it one
follows the other in one thread. They take turns in one process; the ratio of frames/s is printed.
"""

import argparse
import importlib
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from benchmarks import measure
from vspw_jax.console.errors import run_program
from vspw_jax.inference import predict, sources, video
from vspw_jax.inference.predictor import Predictor
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh, quick_compilation
from vspw_jax.training import train_state

RATE = 15
OVERLAP_FRAMES = 60


def make_clip(path, frames, size):
    """A video file of a picture of noise that moves."""
    noise = np.random.default_rng(0).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    picture = noise.repeat(8, axis=0).repeat(8, axis=1)
    with video.video_writer(path, RATE) as append:
        for number in range(frames):
            append(np.roll(picture, number, axis=1))
    return sources.find(path)[0]


def make_predictor(recipe):
    """The recipe's demo with random weights."""
    config = importlib.import_module(f"configs.{recipe}").get_config("demo")
    graphdef, _, _ = train_state.describe(config)
    build = jax.jit(
        lambda key: train_state.split_model(segmenter.build(config.model, key))[1:],
        compiler_options=quick_compilation(),
    )
    params, model_state = build(jax.random.key(0))
    weights = {"params": params, "model_state": model_state}
    return Predictor(config, graphdef, make_mesh(), weights), tuple(config.model.image_size)


def measure_memory(flags, folder):
    """Prints what predicting --memory frames gains at the peak, in MiB."""
    predictor, size = make_predictor(flags.recipe)
    predict.predict_source(predictor, make_clip(folder / "first.mp4", 12, size), folder / "first")
    clip = make_clip(folder / "clip.mp4", flags.memory, size)
    print(measure.gained_memory(lambda: predict.predict_source(predictor, clip, folder / "out")))


def compare_memory(flags):
    for frames in flags.frames:
        command = [sys.executable, "-m", "benchmarks.prediction", f"--recipe={flags.recipe}", f"--memory={frames}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{frames:>6} frames: {float(ended.stdout.splitlines()[-1]):7.1f} MiB gained at the peak", flush=True)


def compare_overlap(flags, folder):
    predictor, size = make_predictor(flags.recipe)
    clip = make_clip(folder / "clip.mp4", OVERLAP_FRAMES, size)
    runs = iter(range(1000))
    ways = [
        lambda overlap=overlap: predict.predict_source(predictor, clip, folder / str(next(runs)), overlap=overlap)
        for overlap in (True, False)
    ]
    with_overlap, without = measure.take_turns(ways, flags.rounds, time.perf_counter)
    print(f"with overlap    {OVERLAP_FRAMES / with_overlap:6.2f} frames/s")
    print(f"without         {OVERLAP_FRAMES / without:6.2f} frames/s, {without / with_overlap:.2f} times the time")


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--recipe", default="nce")
    result.add_argument("--frames", type=lambda text: [int(part) for part in text.split(",")], default=[50, 1000])
    result.add_argument("--rounds", type=int, default=3)
    result.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    return result


def main():
    flags = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if flags.memory:
            measure_memory(flags, pathlib.Path(folder))
        else:
            compare_memory(flags)
            compare_overlap(flags, pathlib.Path(folder))


if __name__ == "__main__":
    run_program(main)
