"""What a run tells of itself: how time was spent, compilations, a log of each process, traces, other services."""

import json
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from vspw_jax.console.errors import UserError
from vspw_jax.observe import compilations
from vspw_jax.observe import observer as observing
from vspw_jax.observe.goodput import Goodput
from vspw_jax.observe.profiling import Trace
from vspw_jax.observe.run_log import LOG, run_log


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self):
        return self.now


def test_goodput_is_what_is_not_spent_elsewhere():
    clock = Clock()
    goodput = Goodput(clock)
    clock.now += 3
    with goodput.elsewhere("compiling"):
        clock.now += 5
    assert goodput.share == 0
    goodput.begin_steps()
    clock.now += 10
    for _ in range(2):
        with goodput.elsewhere("input"):
            clock.now += 1
    assert goodput.seconds == {"start": 3, "compiling": 5, "input": 2}
    assert goodput.share == pytest.approx(10 / 20)
    assert str(goodput) == "50.0 % of 20.0 s in steps; the rest: compiling 5.0 s, start 3.0 s, input 2.0 s"


def test_time_is_booked_where_the_block_fails():
    clock = Clock()
    goodput = Goodput(clock)
    with pytest.raises(ValueError), goodput.elsewhere("input"):
        clock.now += 2
        raise ValueError
    assert goodput.seconds["input"] == 2


def test_compilations_are_counted():
    before = compilations.count()
    step = jax.jit(lambda x: x * 3 + 2)
    step(jnp.ones(7))
    once = compilations.count()
    step(jnp.ones(7))
    assert before < once == compilations.count()
    step(jnp.ones(8))
    assert compilations.count() > once
    assert "programs compiled in" in compilations.describe()


def test_the_log_of_a_process(tmp_path):
    with pytest.raises(UserError), run_log(tmp_path):
        LOG.info("step %d", 7)
        raise UserError("no room")
    LOG.info("afterwards")
    text = (tmp_path / "logs" / "process_0.log").read_text()
    assert "process 0 of 1" in text and "INFO vspw_jax: step 7\n" in text and "ends with UserError: no room" in text
    assert "afterwards" not in text


def observed(workdir, **options):
    observer = observing.Observer(workdir, 0, 10, 4, **options)
    observer.scalars(2, {"loss": 1.5, "gradient_norm": 2.0})
    observer.close()
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_of_metrics(tmp_path):
    (line,) = observed(tmp_path)
    names = {"step", "loss", "gradient_norm", "images_per_second", "goodput", "compilations"}
    assert line.keys() == names and line["loss"] == 1.5


def test_memory_is_the_largest_that_a_device_reports(tmp_path, monkeypatch):
    devices = [
        types.SimpleNamespace(memory_stats=lambda n=n: n and {"peak_bytes_in_use": n}) for n in (None, 2**30, 3 * 2**29)
    ]
    monkeypatch.setattr(observing.jax, "local_devices", lambda: devices)
    assert observed(tmp_path)[0]["device_memory_GiB"] == 1.5


def test_other_processes_write_no_more_than_their_log(tmp_path, monkeypatch):
    monkeypatch.setattr(observing.jax, "process_index", lambda: 1)
    observer = observing.Observer(tmp_path, 0, 10, 4)
    observer.scalars(2, {"loss": 1.5})
    observer.close()
    assert list(tmp_path.iterdir()) == []


def test_weights_and_biases_gets_the_figures_where_it_is_installed(tmp_path, monkeypatch):
    sent = []
    run = types.SimpleNamespace(
        log=lambda values, step: sent.append((step, values["loss"])), finish=lambda: sent.append("end")
    )
    module = types.SimpleNamespace(init=lambda **options: sent.append(options["id"]) or run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    observed(tmp_path, wandb=True)
    assert sent == [tmp_path.name, (2, 1.5), "end"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        observed(tmp_path, wandb=True)


def test_chosen_steps_are_traced_where_tensorboard_looks(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: called.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: called.append("stop"))
    trace = Trace((2, 3), tmp_path)
    for step in range(1, 6):
        called.append(step)
        trace.before(step, jnp.ones(()))
    trace.close()
    assert called == [1, 2, tmp_path, 3, 4, "stop", 5]
    trace = Trace((5, 9), tmp_path)
    trace.before(5, jnp.ones(()))
    trace.close()
    assert called[-2:] == [tmp_path, "stop"]
    Trace((0, 0), tmp_path).before(1, None)


@pytest.mark.parametrize("steps", [(3, 2), (0, 4), (1,), (-1, -1)])
def test_a_trace_of_no_range_of_steps_is_refused(tmp_path, steps):
    with pytest.raises(UserError, match="run.profile_steps is .*such as \\(10, 12\\)"):
        Trace(steps, tmp_path)
