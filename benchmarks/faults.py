"""Kills, stops and damages a short run again and again, and counts what it lost.

    python -m benchmarks.faults [--kills=200] [--stops=50] [--second-starts=50] [--flips=200] [--wait-for-saves]

The run is that of `loop.train` on drawn video, with all that stands around the network: data, loop, checkpoints, log;
in the network's place is a jitted function that mixes every batch into weights of 2 MB, so that one wrong or repeated
batch would change all of them. It saves every 5 of 40 steps. Each start is a process of its own.

SIGKILL and SIGTERM come at random moments of a start, from its first instruction to its end; the next start goes on in
the same workdir, and when the run is complete its weights are compared with those of a run that nothing disturbed.
A "second start" is another in the same workdir, at a random moment of the first: one of them makes all steps, the other
is refused with status 2, unless the first has ended by then.
"Flips" turns one random bit of a random file of a checkpoint, or loses that file, and restores.

Exit status 1 where anything was lost that may not be: a workdir that cannot be loaded; by a kill more than a save
interval and the steps made while the next save is written, which are no more than another interval, as the save after
it waits, or with --wait-for-saves (run.save_in_background=False) more than an interval; by a stop any step at all;
other weights at the end; a second start that harms the first; damage that is not found and named.
"""

import argparse
import collections
import contextlib
import io
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from configs import nce
from data_prep import generate, vspw
from data_prep.drawing import layouts
from vspw_jax.buckets import addresses, workdirs
from vspw_jax.checkpoints import checkpoint, manifest
from vspw_jax.console import errors
from vspw_jax.training import loop, non_finite, preemption, train_state, train_step

STEPS, SAVE_EVERY, WEIGHTS = 40, 5, 500_000
SECONDS_A_STEP = 0.02


def recipe(records, in_background):
    """The demo on little video, without pictures."""
    config = nce.get_config("demo")
    config.model.image_size = config.evaluate.stride = (32, 32)
    config.data.records = str(records)
    config.data.augment.base_size = (64, 48)
    config.train.update(steps=STEPS, batch=8)
    config.loss.nce.groups = 8
    config.run.update(
        log_every=1, save_every=SAVE_EVERY, keep=2, picture_every=10 * STEPS, save_in_background=in_background
    )
    return config


def draw_records(folder):
    """Little video in VSPW's layout, converted."""
    videos = {"train": 5, "val": 1}
    with contextlib.redirect_stderr(io.StringIO()):
        generate.generate(folder / "vspw", lambda aside: layouts.write_vspw(aside, videos, 10, 48, 64, 0))
        vspw.convert(folder / "vspw", folder / "records")
    return folder / "records"


def init_state(_, transformation, key):
    params = {"weights": jax.random.normal(key, (WEIGHTS,))}
    return {
        "params": params,
        "model_state": {},
        "opt_state": transformation.init(params),
        "step": jnp.zeros((), jnp.int32),
        "bad_steps": jnp.zeros((), jnp.int32),
    }


def make_train_step(config, _, transformation, mesh):
    """A step whose weights are a function of all batches until then, in their order."""

    def step(state, batch, _):
        mixed = jnp.roll(jnp.sin(3 * state["params"]["weights"] + batch["image_BTHWC"].mean()), 1)
        _, opt_state = transformation.update(state["params"], state["opt_state"], state["params"])
        state = dict(params={"weights": mixed}, model_state={}, opt_state=opt_state, step=state["step"] + 1)
        return state, {"loss": mixed[0]}

    return jax.jit(non_finite.guarded(step, non_finite.allowed(config.run)), donate_argnums=0)


def make_slow(compile_step):
    """Steps take a while: the loop waits in Python, where a signal finds it."""

    def compiled(*args):
        program = compile_step(*args)

        def step(*args):
            time.sleep(SECONDS_A_STEP)
            return program(*args)

        return step

    return compiled


def opened(workdir):
    """A workdir, also one in a bucket, as a folder of this disk."""
    return workdirs.opened(workdir).folder if addresses.is_address(workdir) else workdir


def run(workdir, records, output, in_background):
    """A start, in a process of its own."""
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    params = {"weights": jax.ShapeDtypeStruct((WEIGHTS,), jnp.float32)}
    train_state.describe = lambda _: (None, params, {})
    train_state.init_state, train_step.make_train_step = init_state, make_train_step
    loop.compiled = make_slow(loop.compiled)
    with preemption.StopRequest() as stop:
        try:
            errors.run_program(lambda: loop.train(recipe(records, in_background), opened(workdir), stop))
        except preemption.Stopped as stopped:
            preemption.leave(stopped)


def steps_saved(workdir):
    """Steps of complete checkpoints."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit())


def logged_steps(workdir):
    """The steps in metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def weights(workdir):
    """Of the newest checkpoint, as bytes."""
    like = {"params": {"weights": jnp.zeros(WEIGHTS)}, "model_state": {}}
    checkpoints = checkpoint.Checkpoints(workdir, keep=2)
    return np.asarray(checkpoints.restore(like)["params"]["weights"]).tobytes()


class Trials:
    """Starts of the run that a signal ends, and what came of them."""

    def __init__(self, folder, seed, in_background=True):
        self.folder, self.random, self.in_background = folder, random.Random(seed), in_background
        self.records = draw_records(folder)
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["data_prep.vspw", "vspw_jax.training.loop"])
        self.seconds, self.wrong = 0.0, []
        self.start(folder / "warm")  # The first pays for the preloading.
        self.seconds = self.start(folder / "undisturbed")[1]
        self.reference = weights(folder / "undisturbed")

    def started(self, workdir, output="output.txt"):
        """A process that has just begun a start, and prints into a file of `folder`."""
        args = workdir, self.records, self.folder / output, self.in_background
        process = self.processes.Process(target=run, args=args)
        process.start()
        return process

    def start(self, workdir, number=None):
        """(exit code, seconds) of a start that gets a signal at a random moment, or none."""
        began = time.monotonic()
        process = self.started(workdir)
        if number:
            process.join(self.random.uniform(0, self.seconds))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        process.join()
        return process.exitcode, time.monotonic() - began

    def disturb(self, number, times):
        """Counts of what `times` signals led to; what may not be is added to `wrong`."""
        seen, number_of_run = collections.Counter(), 0
        workdir = self.folder / f"{number.name}_0"
        while seen["signals"] < times:
            before, status = steps_saved(workdir), self.start(workdir, number)[0]
            saved, logged = steps_saved(workdir), max(logged_steps(workdir), default=0)
            newest, lost = max(saved, default=0), logged - max(saved, default=0)
            if status == -number:
                seen["signals"] += 1
                seen["in mid-save"] += any((workdir / "checkpoints").glob("*tmp*"))
                seen["before training began"] += not before and not saved
                if number == signal.SIGKILL:
                    seen["most steps lost"] = max(seen["most steps lost"], lost)
                    seen["more than an interval lost"] += lost > SAVE_EVERY
                    if lost > SAVE_EVERY * (2 if self.in_background else 1):
                        self.wrong.append(f"{lost} steps lost at step {logged}")
            elif status == 0 and newest < STEPS:
                seen["signals"] += 1
                seen["stopped with status 0"] += 1
                seen["steps lost"] += lost
                if lost > 0:
                    self.wrong.append(f"{lost} steps lost at step {logged} by a stop")
            elif status:
                self.wrong.append(f"status {status}: {(self.folder / 'output.txt').read_text()[-2000:]}")
                break
            # An older one may be half-removed: rotation takes it when the newer is whole.
            if saved:
                self.wrong += manifest.damage(workdir / "checkpoints" / str(newest))
            if newest == STEPS:
                seen["runs completed"] += 1
                if weights(workdir) != self.reference:
                    self.wrong.append("other weights than those of the run that nothing disturbed")
                shutil.rmtree(workdir)
                number_of_run += 1
                workdir = self.folder / f"{number.name}_{number_of_run}"
        return seen

    def second_starts(self, times):
        """Counts of what became of `times` second starts in the workdir of a first; what may not be is in `wrong`."""
        seen, outputs = collections.Counter(), ("first.txt", "second.txt")
        for number in range(times):
            workdir = self.folder / f"second_{number}"
            first = self.started(workdir, outputs[0])
            first.join(self.random.uniform(0, self.seconds))
            second = self.started(workdir, outputs[1])
            ended = []
            for process, output in zip((first, second), outputs, strict=True):
                process.join()
                said = (self.folder / output).read_text()
                (self.folder / output).unlink()
                refused = process.exitcode == 2 and "is in use by process" in said and "Traceback" not in said
                ended.append("refused" if refused else process.exitcode)
                if ended[-1] not in ("refused", 0):
                    self.wrong.append(f"two starts in one workdir, status {process.exitcode}: {said[-2000:]}")
            seen["tried"] += 1
            seen["refused"] += ended.count("refused")
            seen["the first was refused, as it was slower"] += ended[0] == "refused"
            seen["the first had ended"] += ended == [0, 0]
            is_whole = logged_steps(workdir) == list(range(1, STEPS + 1)) and weights(workdir) == self.reference
            if 0 not in ended or not is_whole:
                self.wrong.append(f"two starts in one workdir ended with {ended} and harmed it")
            shutil.rmtree(workdir)
        return seen

    def damage(self, times):
        """Counts of single bits that were turned and single files that were lost, of random files of a checkpoint."""
        seen, workdir = collections.Counter(), self.folder / "undisturbed"
        newest, before = steps_saved(workdir)[-1], steps_saved(workdir)[-2]
        folder = workdir / "checkpoints" / str(newest)
        for _ in range(times):
            path = self.random.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size))
            whole = path.read_bytes()
            if self.random.random() < 0.5:
                bit = self.random.randrange(8 * len(whole))
                path.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
                seen["bits turned"] += 1
            else:
                path.unlink()
                seen["files lost"] += 1
            with contextlib.redirect_stderr(io.StringIO()) as said:
                checkpoints = checkpoint.Checkpoints(workdir, keep=2)
                step = checkpoints.intact_step()
            name = str(path.relative_to(folder))
            if step == before and name in said.getvalue():
                seen["found, named, the one before taken"] += 1
            elif name in manifest.UNREAD and weights(workdir) == self.reference:
                seen["in Orbax's notes on the saving: weights unharmed"] += 1
            else:
                self.wrong.append(f"damage of {name} was not found")
            path.write_bytes(whole)
        return seen


def report(fault, seen):
    print(f"{fault}: " + ", ".join(f"{name} {count}" for name, count in seen.items()), flush=True)


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--kills", type=int, default=200)
    result.add_argument("--stops", type=int, default=50)
    result.add_argument("--second-starts", type=int, default=50)
    result.add_argument("--flips", type=int, default=200)
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--wait-for-saves", action="store_true")
    return result


def main(arguments=None):
    flags = parser().parse_args(arguments)
    logging.set_verbosity(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(pathlib.Path(folder), flags.seed, not flags.wait_for_saves)
        print(f"An undisturbed start: {STEPS} steps, a save every {SAVE_EVERY}, {trials.seconds:.1f} s", flush=True)
        report("kill -9", trials.disturb(signal.SIGKILL, flags.kills))
        report("SIGTERM", trials.disturb(signal.SIGTERM, flags.stops))
        report("second start", trials.second_starts(flags.second_starts))
        report("damage", trials.damage(flags.flips))
    print("\n".join(trials.wrong) or "Nothing was lost that may not be.")
    return bool(trials.wrong)


if __name__ == "__main__":
    errors.run_program(lambda: sys.exit(main()))
