"""Fields of the losses that nothing can be computed with."""

import math

import pytest

from configs import baseline, nce, pne, upernet
from vspw_jax.console.errors import UserError
from vspw_jax.losses import checks

RECIPES = {"baseline": baseline, "nce": nce, "pne": pne, "upernet": upernet}


@pytest.mark.parametrize("size", ["full", "demo"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_pass(recipe, size):
    checks.check_losses(RECIPES[recipe].get_config(size), num_maps=4)


@pytest.mark.parametrize(
    ("recipe", "field", "value", "message"),
    [
        ("nce", "nce.groups", 0, "expected at least 1"),
        ("nce", "nce.groups", -2, "expected at least 1"),
        ("nce", "nce.negatives", -1, "expected at least 0"),
        ("nce", "nce.temperature", 0.0, "expected at least 1e-05"),
        ("nce", "nce.temperature", math.nan, "expected at least 1e-05"),
        ("nce", "nce.level", 4, "expected 0 to 3"),
        ("nce", "nce.min_share", 1.5, "expected 0 to 1"),
        ("nce", "nce.scope", "world", "expected one of all, clip, group"),
        ("nce", "nce.labels", "any", "expected one of majority, nearest"),
        ("nce", "nce.block", "many", "expected auto, plain"),
        ("pne", "pne.samples", 0, "expected at least 1"),
        ("pne", "pne.anchors", 0, "expected at least 1"),
        ("pne", "pne.capacity", 0, "expected at least 1"),
        ("pne", "pne.hard_share", 1.5, "expected 1e-05 to 1"),
        ("pne", "pne.temperature", -1.0, "expected at least 1e-05"),
        ("pne", "pne.form", "equal", "expected one of equation_1, paper, released"),
        ("baseline", "segmentation.oversample", 0.5, "expected at least 1"),
        ("baseline", "segmentation.importance", 1.5, "expected 0 to 1"),
        ("baseline", "segmentation.void", "some", "expected one of background, excluded"),
        ("upernet", "segmentation.averaged_over", "some", "expected one of all, labelled"),
        ("upernet", "segmentation.class_weight", (1.0, 2.0), "has 2 weights: expected one for each of the 124"),
    ],
)
def test_what_cannot_be_computed_is_refused(recipe, field, value, message):
    config = RECIPES[recipe].get_config("demo")
    section, name = field.split(".")
    with config.loss[section].ignore_type():
        config.loss[section][name] = value
    with pytest.raises(UserError, match=f"loss.{field}.*{message}"):
        checks.check_losses(config, num_maps=4)


def test_a_term_that_is_off_is_not_checked():
    config = nce.get_config("demo")
    config.loss.nce.update(weight=0.0, groups=0)
    checks.check_losses(config, num_maps=4)
