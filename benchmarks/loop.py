"""What the loop costs beside the bare training step: input, metrics, checkpoints and the guard of the loop's own.

    python -m benchmarks.loop [--config=configs/nce.py:demo] [--steps=50] [--rounds=5] [--save-every=50]

It runs `loop.train` of a recipe on its generated video, in a workdir that is thrown away. After every `--steps` of its
steps the same compiled step has its turn with the same state and a batch that is at hand, so that both meet the same
machine. Printed are the medians of milliseconds a step and of the turns' ratios (1 is no cost), by the clock and in
processor time, which other work beside it disturbs less, and what passed before the first step. The bare step's turn
begins after `--pause` seconds, in which batches are read ahead, at most `data.prefetch`. In the middle of each of the
loop's turns a save is begun; a picture in none.
"""

import argparse
import contextlib
import importlib
import pathlib
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from data_prep import generate
from vspw_jax.console.errors import run_program
from vspw_jax.observe import compilations
from vspw_jax.training import loop, preemption


class Turns(preemption.StopRequest):
    """A request that never comes: asked before every step of the loop, it gives the bare step its turn."""

    def __init__(self, steps, rounds, pause):
        super().__init__()
        self.steps, self.rounds, self.pause = steps, rounds, pause
        self.loop, self.bare, self.count, self.first_step = [], [], 0, None
        self.began = clocks()

    def compiled(self, step_function, state, batch):
        """In the place of `loop.compiled`."""
        self.program = step_function.lower(state, batch).compile()
        self.state, self.batch = jax.tree.map(jnp.copy, state), batch
        return self.step

    def step(self, state, batch):
        self.last = self.program(state, batch)
        return self.last

    def check(self, step):
        """Called by the loop before each step."""
        if self.count and (self.count - self.steps // 2) % self.steps == 0:
            jax.block_until_ready(self.last)
            self.loop.append(clocks() - self.began)
            time.sleep(self.pause)
            self.bare.append(self.bare_turn())
            self.began = clocks()
        elif self.count == 1:
            jax.block_until_ready(self.last)
            self.first_step = (clocks() - self.began)[0]
        self.count += 1
        if len(self.loop) > self.rounds:
            raise preemption.Stopped

    def bare_turn(self):
        began = clocks()
        for _ in range(self.steps):
            self.state, _ = self.program(self.state, self.batch)
        jax.block_until_ready(self.state)
        return clocks() - began


def clocks():
    """Seconds by the clock and of processor time of all threads."""
    return np.array([time.perf_counter(), time.process_time()])


def recipe(flags):
    """The recipe without pictures, with a save in each turn, long enough for all turns."""
    path, _, size = flags.config.partition(":")
    config = importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config(*filter(None, [size]))
    config.train.steps = max(config.train.steps, flags.steps * (flags.rounds + 2))
    config.run.update(picture_every=10 * config.train.steps, save_every=flags.save_every)
    return config


def measure(flags):
    """Runs all turns; the first one, which compiles, is left out."""
    config, turns = recipe(flags), Turns(flags.steps, flags.rounds, flags.pause)
    generate.for_recipe(config)
    loop.compiled = turns.compiled
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path("runs/compile_cache").absolute()))
        with contextlib.suppress(preemption.Stopped):
            loop.train(config, pathlib.Path(folder), turns)
    return turns


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--config", default="configs/nce.py:demo")
    result.add_argument("--steps", type=int, default=50, help="in a turn")
    result.add_argument("--rounds", type=int, default=5)
    result.add_argument("--save-every", type=int, default=50)
    result.add_argument("--pause", type=float, default=1.0)
    return result


def main():
    flags = parser().parse_args()
    turns = measure(flags)
    for number, clock in enumerate(("by the clock", "processor time")):
        loop, bare = (
            [1000 * turn[number] / flags.steps for turn in turns_of[1:]] for turns_of in (turns.loop, turns.bare)
        )
        ratios = [one / other for one, other in zip(loop, bare, strict=True)]
        print(f"{clock}: a step {statistics.median(bare):.1f} ms, in the loop {statistics.median(loop):.1f} ms")
        print(f"  ratio {statistics.median(ratios):.3f}, of the turns {', '.join(f'{ratio:.3f}' for ratio in ratios)}")
    print(f"to the end of the first step {turns.first_step:.1f} s; {compilations.describe()}")


if __name__ == "__main__":
    run_program(main)
