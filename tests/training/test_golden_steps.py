"""The first training step of every recipe's demo, from its seed, on drawn regions and noise: the loss terms stay.

Of recipes with terms that are 0 there, a later step too, of warm weights: a memory that knows classes, a teacher that
is sure of some cells. It is the same program, compiled once. Randomness, the draw of the weights, the network, the loss
and what a recipe sets are all in them. Gradients are compared with PyTorch's in tests/parity, and their size is written
down where a step is compiled whole.
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
from vspw_jax.classes.class_list import VOID
from vspw_jax.data.views import UNLABELLED
from vspw_jax.models import segmenter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import train_state, train_step

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.name for path in CONFIGS.glob("*.py"))
WARM = ", warm"


def prepared(config):
    """(weights as drawn, a function of (weights, batch, step): the loss terms). No gradient, whose compilation takes
    most of a step's."""
    mesh = make_mesh(devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        # Not compiled as one: draws of equal shapes then serve all recipes.
        model = segmenter.build(config.model, jax.random.key(config.seed))
        graphdef, params, model_state = train_state.split_model(model)
        gradients_of = train_step.make_mapped_gradients(config, graphdef, mesh)
        losses_of = jax.jit(lambda *inputs: gradients_of(*train_step.inputs_of(config, *inputs))[1])

    def losses(weights, batch, step):
        state = {**weights, "ema": weights, "step": np.int32(step)}
        with jax.set_mesh(mesh):
            terms = jax.device_get(losses_of(state, batch, train_step.seed_of(config)))
        return {name: float(value) for name, value in terms.items()}

    return {"params": params, "model_state": model_state}, losses


def warm(weights):
    """Memories know most classes, and classifiers are sure of some cells."""
    rng = np.random.default_rng(0)

    def changed(path, leaf):
        if path.endswith("feature_memory/rows_KC"):
            return rng.normal(size=leaf.shape).astype(leaf.dtype)
        if path.endswith("feature_memory/valid_K"):
            return rng.random(leaf.shape) < 0.9
        return 100 * leaf if path.endswith("classifier/conv/kernel") else leaf

    return placement.map_with_path(changed, weights)


def half_unlabelled(batch):
    """The batch, where it may have clips without labels with every second one so."""
    if UNLABELLED not in batch:
        return batch
    is_unlabelled = np.zeros_like(batch[UNLABELLED])
    is_unlabelled[1::2] = True
    return batch | {UNLABELLED: is_unlabelled, "label_BTHW": np.where(is_unlabelled, VOID, batch["label_BTHW"])}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_step_has_the_losses_that_it_had(recipe, golden, tmp_path, monkeypatch):
    """Where terms of it are 0, so has the last step of warm weights, where none is."""
    monkeypatch.chdir(tmp_path)  # Where no records are: the classes are those of what a demo draws.
    config = runpy.run_path(str(CONFIGS / recipe))["get_config"]("demo").lock()
    run_classes.adopt(config, run_classes.of_run(config, tmp_path), is_stated=False)
    weights, losses = prepared(config)
    batch = drawn_batch(config)
    first = losses(weights, batch, 0)
    golden(f"configs/{recipe}:demo", first)
    if 0 in first.values():
        last = losses(warm(weights), half_unlabelled(batch), config.train.steps - 1)
        assert 0 not in last.values()
        golden(f"configs/{recipe}:demo{WARM}", last, tolerance=1e-3)  # Cells at a threshold may change sides.


def test_no_recipe_is_written_down_that_there_is_not():
    written = json.loads(GOLDEN.read_text())
    assert {name for name in written if name.endswith(":demo")} == {f"configs/{recipe}:demo" for recipe in RECIPES}
    with_zeros = {name for name, numbers in written.items() if name.endswith(":demo") and 0 in numbers.values()}
    assert {name for name in written if name.endswith(WARM)} == {name + WARM for name in with_zeros}


@pytest.mark.parametrize("numbers", [{"mask": 1.001}, {"mask": float("nan")}, {}, {"mask": 1.0, "nce": 2.0}])
def test_another_number_or_term_fails_and_says_what_to_do(numbers, golden, request, monkeypatch):
    if request.config.getoption("write_golden"):
        pytest.skip("it writes")
    monkeypatch.setattr(pathlib.Path, "read_text", lambda path: '{"demo": {"mask": 1.0}}')
    with pytest.raises(pytest.fail.Exception, match=r"demo: the training step(.|\n)*--write-golden"):
        golden("demo", numbers)
    golden("demo", {"mask": 1.00005})
