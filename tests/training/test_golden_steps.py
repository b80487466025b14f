"""The first training step of every recipe's demo, from its seed, on drawn regions and noise: the loss terms stay.

Randomness, the draw of the weights, the network, the loss and what a recipe sets are all in them. Gradients are
compared with PyTorch's in tests/parity, and their size is written down where a step is compiled whole.
"""

import json
import pathlib
import runpy

import jax
import numpy as np
import pytest

from benchmarks.gpu_step import drawn_batch
from tests.training.conftest import GOLDEN
from vspw_jax.checkpoints import run_classes
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import train_state, train_step

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.name for path in CONFIGS.glob("*.py"))


def first_losses(config):
    """The loss terms of the first step; no gradient, whose compilation takes most of a step's."""
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        # Not compiled as one: draws of equal shapes then serve all recipes.
        model = segmenter.build(config.model, jax.random.key(config.seed))
        graphdef, params, model_state = train_state.split_model(model)
        parts = {"params": params, "model_state": model_state}
        state = {**parts, "ema": parts, "step": np.int32(0)}
        gradients_of = train_step.make_mapped_gradients(config, graphdef, mesh)
        losses_of = jax.jit(lambda *inputs: gradients_of(*train_step.inputs_of(config, *inputs))[1])
        return jax.device_get(losses_of(state, drawn_batch(config), train_step.seed_of(config)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_step_has_the_losses_that_it_had(recipe, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where no records are: the classes are those of what a demo draws.
    config = runpy.run_path(str(CONFIGS / recipe))["get_config"]("demo").lock()
    run_classes.adopt(config, run_classes.of_run(config, tmp_path), is_stated=False)
    golden(f"configs/{recipe}:demo", {name: float(value) for name, value in first_losses(config).items()})


def test_no_recipe_is_written_down_that_there_is_not():
    written = {name.removeprefix("configs/") for name in json.loads(GOLDEN.read_text()) if name.endswith(":demo")}
    assert written == {f"{recipe}:demo" for recipe in RECIPES}


@pytest.mark.parametrize("numbers", [{"mask": 1.001}, {"mask": float("nan")}, {}, {"mask": 1.0, "nce": 2.0}])
def test_another_number_or_term_fails_and_says_what_to_do(numbers, golden, request, monkeypatch):
    if request.config.getoption("write_golden"):
        pytest.skip("it writes")
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: '{"demo": {"mask": 1.0}}')
    with pytest.raises(pytest.fail.Exception, match=r"demo: the first training step(.|\n)*--write-golden"):
        golden("demo", numbers)
    golden("demo", {"mask": 1.00005})
