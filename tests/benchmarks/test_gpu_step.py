"""The step on the device that is here: what it takes, and the profiler's account of a program by its source."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import compile_for_tpu, device_trace, gpu_step
from benchmarks.tpu_cost import tables
from vspw_jax.classes.class_list import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.sampling import bilinear


def options(*flags):
    return gpu_step.parser().parse_args(["--size=demo", "--crop=64", *flags])


def test_drawn_batches_have_what_each_recipe_takes():
    for recipe, frames in (("nce", 2), ("mdp", 1), ("ssltm_mean_teacher", 5)):
        config = compile_for_tpu.recipe(options(f"--recipe={recipe}", f"--frames={frames}", "--clips=2"), 1)
        batch = gpu_step.drawn_batch(config)
        for name, array in batch.items():
            assert array.shape[0] == 2
            if name.endswith("label_BTHW"):
                assert set(np.unique(array)) <= {*range(config.model.num_classes), VOID}
                assert 2 < len(np.unique(array)) <= 2 * frames * gpu_step.REGIONS
            if name.endswith("image_BTHWC"):
                assert array.std() == pytest.approx(1, abs=0.05)
        assert not batch.get("unlabelled_BTHW", np.zeros(1)).any()


def test_the_profiler_tells_which_lines_took_the_time(tmp_path):
    points = jax.random.uniform(jax.random.key(0), (200_000, 2))
    program = jax.jit(lambda x: bilinear.sample(x, points).sum()).lower(jnp.ones((64, 64, 8))).compile()
    with jax.profiler.trace(str(tmp_path)):
        for _ in range(2):
            jax.block_until_ready(program(jnp.ones((64, 64, 8))))
    costs = device_trace.costs(tmp_path, program.as_text(), 2)
    rows = tables.shares(costs, tables.line, device_trace.MICROSECONDS)
    ours = [row for name, row in rows.items() if name.startswith("sampling/bilinear.py:")]
    assert sum(row["share"] for row in ours) > 0.5 and sum(row["ms"] for row in ours) > 0.1
    with pytest.raises(UserError, match="no instruction of the program"):
        device_trace.costs(tmp_path / "nothing", program.as_text(), 2)


def test_a_step_is_timed_and_told_apart_by_module(tmp_path, monkeypatch):
    flags = ["--recipe=upernet", "--size=demo", "--crop=64", "--frames=1", "--clips=1", "--dtype=float32", "--steps=2"]
    path = tmp_path / "step.json"
    monkeypatch.setattr("sys.argv", ["gpu_step", *flags, "--trace", f"--json={path}"])
    gpu_step.main()
    row = json.loads(path.read_text())
    assert 0 < row["ms_least_and_most"][0] <= row["ms"] <= row["ms_least_and_most"][1]
    assert row["model_TFLOP"] > 0 and row["temporary_GiB"] > 0
    assert row["losses_last"]["loss"] == pytest.approx(row["losses_first"]["loss"], rel=0.1)
    assert row["by_module"]["models/segmenter Segmenter"]["share"] > 0.1
    assert row["traced_ms"] > 0


def test_a_file_that_cannot_be_written_is_told_before_compiling(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["gpu_step", f"--json={tmp_path}/file/step.json"])
    with pytest.raises(UserError, match="--json"):
        gpu_step.main()
