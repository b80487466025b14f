"""A run that was stopped or killed and started again is, bit for bit, the run that was not.

Its network is the small one of `parallel/program.py`; `end_to_end/test_demo.py` goes on with a run of the real one.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vspw_jax import main
from vspw_jax.checkpoints import beginning, checkpoint, manifest
from vspw_jax.console.errors import UserError
from vspw_jax.data import pipeline
from vspw_jax.files import ownership
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import loop, replay, train_state
from vspw_jax.training.preemption import Stopped, StopRequest


@pytest.fixture(scope="module")
def compiled():
    """What was compiled, by its recipe."""
    return {}


FIELDS = {"train.steps": 6, "run.picture_every": 1000}


@pytest.fixture
def config(small_config):
    small_config.update_from_flattened_dict(FIELDS)
    return small_config


@pytest.fixture
def seen(config, monkeypatch, compiled):
    """Sums of the batches that training took, in their order; training takes its compiled functions from `compiled`."""
    batches, sums = pipeline.training_batches, []

    def watched(*args):
        for batch in batches(*args):
            sums.append((float(batch["image_BTHWC"].sum()), int(batch["label_BTHW"].sum())))
            yield batch

    compile_step = loop.compiled

    def once(step_function, *inputs):
        recipe = tuple(config[name].to_json_best_effort() for name in ("model", "loss", "optimizer", "train"))
        if recipe not in compiled:
            compiled[recipe] = compile_step(step_function, *inputs)
        return compiled[recipe]

    monkeypatch.setattr(pipeline, "training_batches", watched)
    monkeypatch.setattr(loop, "compiled", once)
    return sums


@pytest.fixture(scope="module")
def reference():
    """The uninterrupted run, once made."""
    return {}


@pytest.fixture
def uninterrupted(config, seen, reference, tmp_path_factory):
    """(final state, metrics, batches, workdir) of the run that nothing stops."""
    if not reference:
        workdir = tmp_path_factory.mktemp("uninterrupted")
        state = jax.tree.map(np.asarray, loop.train(config, workdir))
        reference["run"] = state, metrics(workdir), list(seen), workdir
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
    state, lines, batches, _ = uninterrupted
    assert state["step"] == config.train.steps == len(batches) == len(set(batches))
    assert [line["step"] for line in lines] == list(range(1, config.train.steps + 1))
    assert all(np.isfinite(value) for line in lines for value in line.values())


def interrupted(batches, number, how):
    """The stream of batches, in which reading one of them meets with `how`()."""

    def stream(*args):
        for index, batch in enumerate(batches(*args)):
            if index == number:
                how()
            yield batch

    return stream


def interrupt():
    raise KeyboardInterrupt


def request_stop():
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("how", "number", "made", "saved"), [(interrupt, 3, 3, 2), (request_stop, 2, 3, 3), (request_stop, 4, 5, 5)]
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    config, uninterrupted, seen, tmp_path, monkeypatch, how, number, made, saved
):
    """Checkpoints are of steps 2, 4 and 6. After a crash steps are made again, and logged once."""
    ends = pytest.raises(KeyboardInterrupt if how is interrupt else Stopped)
    with monkeypatch.context() as patch, StopRequest() as stop, ends as ended:
        patch.setattr(pipeline, "training_batches", interrupted(pipeline.training_batches, number, how))
        loop.train(config, tmp_path, stop)
    if how is request_stop:
        assert str(ended.value) == f"Stopped after step {saved} of 6, saved in {tmp_path / 'checkpoints'}."
    assert checkpoint.Checkpoints(tmp_path, keep=3).latest_step() == saved
    assert len(metrics(tmp_path)) == made
    seen.clear()
    state = loop.train(config, tmp_path)
    assert seen == uninterrupted[2][saved:]
    assert_same_run(state, tmp_path, uninterrupted)


def test_a_run_that_is_complete_trains_no_more(config, uninterrupted, seen, tmp_path):
    shutil.copytree(uninterrupted[3], tmp_path, dirs_exist_ok=True)
    again = loop.train(config, tmp_path)
    assert seen == []
    assert_same_run(again, tmp_path, uninterrupted)


def test_the_step_is_compiled_once(uninterrupted):
    lines = [json.loads(line) for line in (uninterrupted[3] / "metrics.jsonl").read_text().splitlines()]
    assert len({line["compilations"] for line in lines[2:]}) == 1  # Orbax has a program of its own for the first save.


def test_a_batch_that_is_no_number_reaches_no_weight_and_can_be_replayed(
    config, uninterrupted, seen, tmp_path, monkeypatch, capfd
):
    """The run ends at the logging after step 3, with the state of step 2; the replay names what is not finite."""
    config.run.log_every = 5
    batches = pipeline.training_batches

    def spoilt(*args):
        for index, batch in enumerate(batches(*args), start=args[4]):
            if index == 2:
                batch["image_BTHWC"][0, 0, 3, 4, 1] = np.nan
            yield batch

    monkeypatch.setattr(pipeline, "training_batches", spoilt)
    with pytest.raises(UserError, match="At step 3 .*gradient_norm.*loss.* became NaN or infinite"):
        loop.train(config, tmp_path)
    arrays = {}
    for workdir in (tmp_path, uninterrupted[3]):
        _, weights = train_state.restore_weights(
            config, checkpoint.Checkpoints(workdir, keep=3), make_mesh(), at_most=2
        )
        arrays[workdir] = jax.tree.leaves(weights)
    assert checkpoint.Checkpoints(tmp_path, keep=3).latest_step() == 2
    for left, right in zip(*arrays.values(), strict=True):
        np.testing.assert_array_equal(left, right)

    report = "\n".join(replay.replay(config, tmp_path))
    assert "Step 3, saved in" in capfd.readouterr().out
    assert "image values 1 of" in report and "Weights before the step: 0 of" in report
    assert re.search(r"loss +nan +nan +<- not finite", report)
    assert "The first NaN came from " in report
    assert re.search(r"learning_rate +\S+ +\S+$", report, re.MULTILINE)
    found = re.search(
        r"Gradients: (\d+) of (\d+) arrays hold NaN or infinity \(decoder (\d+), encoder (\d+)\):", report
    )
    assert int(found[1]) == int(found[3]) + int(found[4]) <= int(found[2]) and "  decoder/" in report


def test_the_program_answers_a_request_to_stop(
    config, uninterrupted, small_flags, tmp_path, compile_cache, program, request
):
    """With status 0 and a line that says how to go on; kills, which need no network, are in tests/faults."""
    (tmp_path / "compile_cache").symlink_to(compile_cache)
    workdir = tmp_path / "run"
    command = [sys.executable, program.__file__, *small_flags, f"--workdir={workdir}", "--config.run.afterwards=()"]
    command += [f"--config.{name}={value}" for name, value in FIELDS.items()]
    environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath), "SECONDS_A_BATCH": "0.5"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        deadline = time.monotonic() + 600
        log_of_steps = workdir / "metrics.jsonl"
        while process.poll() is None and time.monotonic() < deadline:
            if log_of_steps.exists() and log_of_steps.read_text().count("\n") >= 2:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
    output = (tmp_path / "log").read_text()
    assert process.returncode == 0 and "Traceback" not in output, output
    step = checkpoint.Checkpoints(workdir, keep=3).latest_step()
    assert 2 <= step < config.train.steps, output
    (line,) = (line for line in output.splitlines() if "To go on" in line)
    assert line.startswith(f"Stopped after step {step} of 6, saved in {workdir / 'checkpoints'}. To go on: python -m ")
    assert f"--workdir={workdir}" in line
    assert_same_run(loop.train(config, workdir), workdir, uninterrupted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_the_step_is_saved(config, tmp_path, without_network, bad):
    config.run.log_every = 1000
    without_network(bad_from=3, loss=bad, mask=1.0)
    with pytest.raises(UserError, match="At step 3 loss became NaN or infinite(.|\n)*--mode=replay.*learning_rate"):
        loop.train(config, tmp_path)
    assert checkpoint.Checkpoints(tmp_path, keep=3).latest_step() == 2
    assert [path.name for path in (tmp_path / "bad_steps").iterdir()] == ["step_00000003.npz"]


def test_room_is_looked_for_before_the_first_step(config, tmp_path, without_network, monkeypatch):
    without_network(loss=1.0)
    usage = checkpoint.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(UserError, match="No room for checkpoints"):
        loop.train(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_run_whose_workdir_another_took_saves_no_more(config, tmp_path, without_network, monkeypatch):
    """As after it stood still for long: the other run's lease is in the place of its own."""

    def lost(_):
        raise UserError("another program may write there now")

    without_network(loss=1.0)
    monkeypatch.setattr(ownership.Ownership, "check", lost)
    with pytest.raises(UserError, match="another program may write there now"):
        loop.train(config, tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_first_steps_are_replayed_from_what_the_run_began_from(config, tmp_path, without_network):
    without_network(bad_from=1, loss=float("nan"))
    with pytest.raises(UserError, match="At step 1 loss became NaN"):
        loop.train(config, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    beginning.note(tmp_path, ConfigDict({"init_from": __file__, "init_from_key": ""}))
    with pytest.raises(UserError, match=f"began from {__file__}, not from weights drawn at random"):
        replay.replay(config, tmp_path)


def test_more_classes_than_queries_are_refused(tiny_config, tmp_path):
    tiny_config.loss.segmentation.capacity = 11
    with pytest.raises(UserError, match="num_queries"):
        loop.train(tiny_config, tmp_path)
    assert list(tmp_path.iterdir()) == []


def blocked(released):
    """Asks for a stop, then does what no signal interrupts."""
    request_stop_from_a_thread()
    released.wait(60)


def request_stop_from_a_thread():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def released():
    """An event that frees what was abandoned, at the test's end."""
    event = threading.Event()
    yield event
    event.set()


def stopped(config, workdir):
    """The message of a run that was asked to stop, and the step that is saved."""
    with pytest.raises(Stopped) as ended:
        main.run_train(config, workdir)
    checkpoints = checkpoint.Checkpoints(workdir, keep=3)
    return str(ended.value), checkpoints.intact_step()


def test_a_stop_in_the_first_compilation(config, tmp_path, without_network, monkeypatch, released):
    without_network(loss=1.0)
    monkeypatch.setattr(loop, "compiled", lambda *_: blocked(released))
    assert stopped(config, tmp_path) == (f"Stopped after step 0 of 6, saved in {tmp_path / 'checkpoints'}.", 0)


def test_a_stop_in_a_picture(config, tmp_path, without_network, monkeypatch, released):
    without_network(loss=1.0)
    config.run.picture_every = 3
    monkeypatch.setattr(loop.Pictures, "show", lambda *_: blocked(released))
    assert stopped(config, tmp_path) == (f"Stopped after step 3 of 6, saved in {tmp_path / 'checkpoints'}.", 3)


def test_a_stop_in_a_save(config, tmp_path, without_network, monkeypatch):
    """The save of step 4 goes on beside the steps; it becomes whole, and so does the one of the step then reached."""
    without_network(loss=1.0)
    write = manifest.write

    def write_slowly(folder, name):
        if name == "4":
            request_stop_from_a_thread()
        write(folder, name)

    monkeypatch.setattr(manifest, "write", write_slowly)
    message, step = stopped(config, tmp_path)
    assert message.startswith(f"Stopped after step {step} of 6" if step < 6 else "Stopped in --mode=evaluate")
    assert step in (4, 5, 6) and manifest.damage(tmp_path / "checkpoints" / "4") == []


def test_a_stop_in_the_evaluation(config, tmp_path, without_network, monkeypatch, released):
    without_network(loss=1.0)
    monkeypatch.setitem(main.MODES, "evaluate", lambda *_: blocked(released))
    expected = f"Stopped in --mode=evaluate, all of training saved in {tmp_path / 'checkpoints'}."
    assert stopped(config, tmp_path) == (expected, 6)


def test_a_step_that_is_left_out_is_told_and_saved(config, tmp_path, capfd):
    unread = {
        step: {"loss": loss, "bad_steps": count}
        for step, loss, count in [(1, 0.5, 0), (2, np.inf, 1), (3, np.nan, 2), (4, 0.25, 0)]
    }
    config.run.update(non_finite="skip", most_skipped=2)
    unread = {step: jax.tree.map(jnp.float32, row) for step, row in unread.items()}
    loop.Run(config, tmp_path, *[None] * 6, unread).heed_bad_steps(state=None)
    errors = capfd.readouterr().err
    assert errors.count("Warning: ") == 2 and "At step 2 loss became NaN or infinite. It was left out" in errors
    step, figures, batch = replay.load(tmp_path / "bad_steps" / "step_00000002.npz", config)
    with contextlib.closing(pipeline.batches_of_run(config, 0)) as batches:
        expected = [next(batches) for _ in range(2)][1]
    assert step == 2 and figures == {"loss": np.inf, "bad_steps": 1.0}
    for name, array in expected.items():
        np.testing.assert_array_equal(batch[name], array)
    assert replay.newest(tmp_path).name == "step_00000003.npz"


def test_what_is_no_saved_step_is_named(config, tmp_path):
    with pytest.raises(UserError, match="No bad step was saved in .*--input=FILE"):
        replay.replay(config, tmp_path)
    path = tmp_path / "step.npz"
    path.write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(UserError, match="step.npz is no saved step"):
        replay.replay(config, tmp_path, path)
    np.savez(path, step=3, seed=config.seed + 1, metrics="{}")
    with pytest.raises(UserError, match="seed 1, the recipe's is 0: set --config.seed=1"):
        replay.replay(config, tmp_path, path)
