"""A run that was stopped or killed and started again is, bit for bit, the run that was not."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from vspw_jax import checkpoint, train, train_step
from vspw_jax.data import pipeline
from vspw_jax.errors import UserError


@pytest.fixture(scope="module")
def compiled():
    """What was compiled, by its recipe."""
    return {}


@pytest.fixture
def config(tiny_config):
    tiny_config.run.picture_every = 1000
    return tiny_config


@pytest.fixture
def seen(config, monkeypatch, compiled):
    """Sums of the batches that training took, in their order; training takes its compiled functions from `compiled`."""
    batches, sums = pipeline.training_batches, []

    def watched(*args):
        for batch in batches(*args):
            sums.append((float(batch["image_BTHWC"].sum()), int(batch["label_BTHW"].sum())))
            yield batch

    compile_step = train.compiled

    def once(step_function, state, batch):
        if config.to_json() not in compiled:
            compiled[config.to_json()] = compile_step(step_function, state, batch)
        return compiled[config.to_json()]

    monkeypatch.setattr(pipeline, "training_batches", watched)
    monkeypatch.setattr(train, "compiled", once)
    return sums


@pytest.fixture(scope="module")
def reference():
    """The uninterrupted run, once made."""
    return {}


@pytest.fixture
def uninterrupted(config, seen, reference, tmp_path_factory):
    """(final state, metrics, batches) of the run that nothing stops."""
    if not reference:
        workdir = tmp_path_factory.mktemp("uninterrupted")
        state = jax.tree.map(np.asarray, train.train(config, workdir))
        reference["run"] = state, metrics(workdir), list(seen)
        seen.clear()
    return reference["run"]


def metrics(workdir):
    """The lines of metrics.jsonl, less what the clock and the process decide."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    of_process = ("images_per_second", "goodput", "compilations")
    return [{name: value for name, value in line.items() if name not in of_process} for line in lines]


def assert_same_run(state, workdir, expected):
    for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_array_equal(left, right)
    assert metrics(workdir) == expected[1]


def test_the_uninterrupted_run_leaves_what_it_should(config, uninterrupted):
    state, lines, batches = uninterrupted
    assert state["step"] == config.train.steps == len(batches) == len(set(batches))
    assert [line["step"] for line in lines] == list(range(1, config.train.steps + 1))
    assert all(np.isfinite(value) for line in lines for value in line.values())


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(config, uninterrupted, seen, tmp_path, monkeypatch, stop):
    """Checkpoints are of steps 2, 4 and 6: after a stop at 3 or 5 a step is made again, and logged once."""
    watched = pipeline.training_batches

    def interrupted(*args):
        for number, batch in enumerate(watched(*args)):
            if number == stop:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "training_batches", interrupted)
        train.train(config, tmp_path)
    saved = stop // 2 * 2
    assert checkpoint.Checkpoints(tmp_path, keep=3).latest_step() == saved
    assert len(metrics(tmp_path)) == stop
    seen.clear()
    state = train.train(config, tmp_path)
    assert seen == uninterrupted[2][saved:]
    assert_same_run(state, tmp_path, uninterrupted)

    seen.clear()
    again = train.train(config, tmp_path)
    assert seen == []
    assert_same_run(again, tmp_path, uninterrupted)


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    config, uninterrupted, tiny_flags, tmp_path, compile_cache, request
):
    """SIGKILL, in the middle of a step or a save, to the program itself."""
    (tmp_path / "compile_cache").symlink_to(compile_cache)
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "vspw_jax.main", *tiny_flags, f"--workdir={workdir}"]
    command += ["--config.run.picture_every=1000", "--config.run.afterwards=()"]
    environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        deadline = time.monotonic() + 300
        log_of_steps = workdir / "metrics.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            if log_of_steps.exists() and log_of_steps.read_text().count("\n") >= 3:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert_same_run(train.train(config, workdir), workdir, uninterrupted)


class Step:
    """In the place of a jitted step: counts, and has the metrics that it is given; `bad_steps` from a step on."""

    def __init__(self, bad_from=1000, **metrics):
        self.bad_from, self.metrics = bad_from, metrics

    def lower(self, *_):
        return self

    def compile(self):
        return self

    def __call__(self, state, _):
        step = state["step"] + 1
        bad = step >= self.bad_from
        return {**state, "step": step - bad, "bad_steps": np.array(int(bad))}, {**self.metrics, "bad_steps": float(bad)}


@pytest.fixture
def no_network(monkeypatch):
    """A state of a few numbers and a step that counts them: for what stands around the network."""
    state = {name: np.zeros(3) for name in ("params", "model_state", "opt_state")}
    state |= {name: np.zeros((), int) for name in ("step", "bad_steps")}
    monkeypatch.setattr(train_step, "new_state", lambda *_: state)
    return lambda **options: monkeypatch.setattr(train_step, "make_train_step", lambda *_: Step(**options))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_the_step_is_saved(config, tmp_path, no_network, bad):
    config.run.log_every = 1000
    no_network(bad_from=3, loss=bad, mask=1.0)
    with pytest.raises(UserError, match="At step 3 loss became NaN or infinite(.|\n)*--mode=replay.*learning_rate"):
        train.train(config, tmp_path)
    assert checkpoint.Checkpoints(tmp_path, keep=3).latest_step() == 2
    assert [path.name for path in (tmp_path / "bad_steps").iterdir()] == ["step_00000003.npz"]


def test_room_is_looked_for_before_the_first_step(config, tmp_path, no_network, monkeypatch):
    no_network(loss=1.0)
    usage = checkpoint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(UserError, match="No room for checkpoints"):
        train.train(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_more_classes_than_queries_are_refused(config, tmp_path):
    config.loss.segmentation.capacity = 11
    with pytest.raises(UserError, match="num_queries"):
        train.train(config, tmp_path)
    assert list(tmp_path.iterdir()) == []
