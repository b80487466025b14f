"""Fields of the losses that nothing can be computed with."""

import pytest

from configs import baseline, nce, pne, upernet
from configs.parts import losses
from vspw_jax.console.errors import UserError
from vspw_jax.losses import checks

KINDS = {"mask2former": "mask_classification", "upernet": "per_pixel"}
RECIPES = {"baseline": baseline, "nce": nce, "pne": pne, "upernet": upernet}


def check(config):
    checks.check_losses(config, num_maps=4, kind=KINDS[config.model.decoder.name])


@pytest.mark.parametrize("size", ["full", "demo"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_pass(recipe, size):
    check(RECIPES[recipe].get_config(size))


@pytest.mark.parametrize(
    ("recipe", "field", "value", "message"),
    [
        ("nce", "nce.level", 4, "expected 0 to 3"),
        ("nce", "nce.scope", "world", "expected one of all, clip, group"),
        ("nce", "nce.labels", "any", "expected one of majority, nearest"),
        ("nce", "nce.block", "many", "expected auto, plain"),
        ("pne", "pne.form", "equal", "expected one of equation_1, paper, released"),
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
        check(config)


def test_a_term_that_is_off_is_not_checked():
    config = nce.get_config("demo")
    config.loss.nce.update(weight=0.0, groups=0)
    check(config)


@pytest.mark.parametrize("table", ["weights", "matching"])
def test_a_table_of_weights_has_the_terms_of_the_decoders_loss_and_no_other(table):
    config = baseline.get_config("demo")
    config.loss.segmentation[table].focal = 1.0
    with pytest.raises(UserError, match=f"{table} has cls, .*focal.*: expected cls, mask, dice.*'mask2former'"):
        check(config)
    config.loss.segmentation[table] = {"cls": 1.0}
    with pytest.raises(UserError, match=f"{table} has cls: expected cls, mask, dice"):
        check(config)


def test_the_loss_of_another_decoder_is_refused():
    config = baseline.get_config("demo")
    config.loss.segmentation = losses.per_pixel()
    with pytest.raises(UserError, match=r"loss.segmentation has averaged_over, .*losses.mask_classification"):
        check(config)


def test_a_loss_that_is_always_0_is_refused():
    config = nce.get_config("demo")
    config.loss.weight = 0.0
    check(config)  # The contrast is left.
    config.loss.nce.weight = 0.0
    with pytest.raises(UserError, match="Every weight of the loss is 0: loss.weight is 0.0"):
        check(config)
