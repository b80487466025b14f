"""The ranges of a recipe's fields."""

import math
import pathlib
import runpy

import pytest

from vspw_jax.console import ranges
from vspw_jax.console.errors import UserError
from vspw_jax.console.recipe_file import flatten
from vspw_jax.training import checks

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = [(path.name, size) for path in sorted(CONFIGS.glob("*.py")) for size in ("full", "demo")]


@pytest.mark.parametrize(("recipe", "size"), RECIPES)
def test_every_field_of_every_recipe_has_a_range_and_lies_within(recipe, size):
    config = runpy.run_path(str(CONFIGS / recipe))["get_config"](size)
    assert [name for name in flatten(config) if ranges.range_of(name) is None] == []
    checks.check_recipe(config)


@pytest.mark.parametrize("name", [name for name, allowed in ranges.RANGES.items() if allowed.kind in (int, float)])
def test_beyond_its_bounds_a_number_is_refused(name):
    allowed = ranges.RANGES[name]
    wrap = (lambda value: (value,) * (allowed.count or 1)) if allowed.many else lambda value: value
    just_beyond = [allowed.least - 1, allowed.most + 1 if allowed.most < math.inf else math.inf]
    for value in (*just_beyond, math.nan, "3", None, True, *([1.5] if allowed.kind is int else [])):
        with pytest.raises(UserError, match=f"{name.split('*')[0]}.* is .*: expected .*number"):
            ranges.check_values({name.replace("*", "other"): wrap(value)})
    ranges.check_values({name.replace("*", "other"): wrap(allowed.least)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("train.steps", -5, "train.steps is -5: expected a whole number from 1 to 2147483647."),
        ("ema.decay", 1.0, "ema.decay is 1.0: expected a number from 0 to below 1."),
        ("optimizer.learning_rate", -1.0, "optimizer.learning_rate is -1.0: expected a number of at least 1e-12."),
        ("loss.nce.temperature", 0.0, "loss.nce.temperature is 0.0: expected a number of at least 1e-05."),
        ("evaluate.flip", "no", "evaluate.flip is 'no': expected True or False."),
        ("data.records", 3, "data.records is 3: expected a path."),
        ("data.records", "", "data.records is empty: expected a path."),
        ("data.fits", "exact", "data.fits is 'exact': expected a tuple of texts such as \"('a', 'b')\"."),
        (
            "data.augment.resize_ratio",
            (2.0, 0.5),
            'data.augment.resize_ratio is (2.0, 0.5): expected a tuple of 2 numbers in rising order such as "(1, 2)", '
            "each from 0.01 to 100.",
        ),
        (
            "model.decoder.pool_scales",
            (),
            'model.decoder.pool_scales is (): expected a tuple of one or more whole numbers such as "(1, 2)", each '
            "from 1 to 1024.",
        ),
        (
            "data.augment.base_size",
            (64,),
            'data.augment.base_size is (64,): expected a tuple of 2 whole numbers such as "(1, 2)", each from 1 to '
            "16384.",
        ),
        ("train.stepz", 3, "The recipe has a field train.stepz, which nothing reads. Did you mean train.steps?"),
    ],
)
def test_the_message_says_what_is_allowed(name, value, message):
    with pytest.raises(UserError) as raised:
        ranges.check_values({name: value})
    assert str(raised.value) == message
