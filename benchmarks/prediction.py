"""Predicting a video: peak memory of a short and a long one; frames/s with overlap, without, and of the network alone.

    python -m benchmarks.prediction [--recipe=nce] [--frames=50,1000] [--rounds=3]
    python -m benchmarks.prediction --size=full --picture=853x480 --frames=

The recipe's network with random weights predicts files of drawn noise. Memory is what a process of its own gains at the
peak over what it held once the program was compiled; the aim is that it does not grow with the video. Overlap is
--mode=predict as it is: reading, the network and writing go on at the same time; without it one follows the other in
one thread. The network alone gets the same batches, which lie on the devices already; nothing is read, sent, drawn or
written. They take turns in one process. The ratios of frames/s are printed; the aim is 90 % of the network's with
overlap.
"""

import argparse
import importlib
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest.mock

import jax
import numpy as np

from benchmarks import measure
from vspw_jax.console.errors import run_program
from vspw_jax.inference import predict, sources, video
from vspw_jax.inference.predictor import Predictor
from vspw_jax.inference.threads import one_ahead
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh, quick_compilation
from vspw_jax.training import train_state

RATE = 15


def make_clip(path, frames, size):
    """A video file of a picture of noise that moves."""
    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    picture = noise.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    with video.video_writer(path, RATE) as append:
        for number in range(frames):
            append(np.roll(picture, number, axis=1))
    return sources.find(path)[0]


def make_predictor(flags):
    """(the recipe's network with random weights, height and width of the frames)."""
    config = importlib.import_module(f"configs.{flags.recipe}").get_config(flags.size)
    graphdef, _, _ = train_state.describe(config)
    build = jax.jit(
        lambda key: train_state.split_model(segmenter.build(config.model, key))[1:],
        compiler_options=quick_compilation(),
    )
    params, model_state = build(jax.random.key(0))
    weights = {"params": params, "model_state": model_state}
    return Predictor(config, graphdef, make_mesh(), weights), flags.picture or tuple(config.model.image_size)


def measure_memory(flags, folder):
    """Prints what predicting --memory frames gains at the peak, in MiB."""
    predictor, size = make_predictor(flags)
    predict.predict_source(predictor, make_clip(folder / "first.mp4", 12, size), folder / "first")
    clip = make_clip(folder / "clip.mp4", flags.memory, size)
    print(measure.gained_memory(lambda: predict.predict_source(predictor, clip, folder / "out")))


def compare_memory(flags):
    for frames in flags.frames:
        command = [sys.executable, "-m", "benchmarks.prediction", *sys.argv[1:], f"--memory={frames}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{frames:>6} frames: {float(ended.stdout.splitlines()[-1]):7.1f} MiB gained at the peak", flush=True)


def given_batches(predictor, clip, folder):
    """What the compiled network is given for every batch of a clip, as it lies on the devices."""
    given, predict_batch = [], predictor._predict

    def noted(*inputs):
        given.append(inputs)
        return predict_batch(*inputs)

    with unittest.mock.patch.object(predictor, "_predict", noted):
        predict.predict_source(predictor, clip, folder)
    return given


def network_alone(predictor, batches):
    """Predicts batches that lie on the devices, each begun before the one before it is awaited, as with overlap."""
    for result in one_ahead(lambda inputs: predictor._predict(*inputs), batches):
        jax.block_until_ready(result)


def compare_overlap(flags, folder):
    predictor, size = make_predictor(flags)
    clip = make_clip(folder / "clip.mp4", flags.clip, size)
    batches = given_batches(predictor, clip, folder / "given")
    runs = iter(range(1000))
    ways = [
        *(
            lambda overlap=overlap: predict.predict_source(predictor, clip, folder / str(next(runs)), overlap=overlap)
            for overlap in (True, False)
        ),
        lambda: network_alone(predictor, batches),
    ]
    with_overlap, without, alone = measure.take_turns(ways, flags.rounds, time.perf_counter)
    height, width, _ = next(iter(clip.frames()))[1].shape  # H.264 leaves out the last column of an odd width.
    print(f"{flags.clip} frames of {width}x{height}, {predictor.batch} in a batch, {jax.devices()[0].device_kind}")
    print(f"with overlap    {flags.clip / with_overlap:6.2f} frames/s")
    print(f"without         {flags.clip / without:6.2f} frames/s, {without / with_overlap:.2f} times the time")
    print(f"network alone   {flags.clip / alone:6.2f} frames/s; with overlap {alone / with_overlap:.1%} of that")


def picture_size(text):
    """(height, width) of "853x480"."""
    width, height = map(int, text.split("x"))
    return height, width


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--recipe", default="nce")
    result.add_argument("--size", default="demo", help="Of the recipe; or full.")
    result.add_argument("--picture", type=picture_size, help="Width and height of the frames; default: the crop.")
    numbers = lambda text: [int(part) for part in text.split(",") if part]
    result.add_argument("--frames", type=numbers, default=[50, 1000], help="Of the videos for memory; or none.")
    result.add_argument("--clip", type=int, default=60, help="Frames of the video for frames/s.")
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
