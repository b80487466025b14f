"""What can be wrong with a recipe's losses, found before anything is compiled."""

import math

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.losses import cross_frame_nce, patch_labels, per_pixel, pne, segmentation

LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "segmentation": {
        "capacity": (1, math.inf),
        "num_points": (1, math.inf),
        "oversample": (1, math.inf),
        "importance": (0, 1),
        "no_object_weight": (0, math.inf),
    },
    "nce": {
        "temperature": (1e-5, math.inf),
        "groups": (1, math.inf),
        "min_share": (0, 1),
        "negatives": (0, math.inf),
        "start_step": (0, math.inf),
        "warmup_steps": (0, math.inf),
    },
    "pne": {
        "temperature": (1e-5, math.inf),
        "anchors": (1, math.inf),
        "samples": (1, math.inf),
        "capacity": (1, math.inf),
        "hard_share": (1e-5, 1),
        "start_step": (0, math.inf),
        "warmup_steps": (0, math.inf),
    },
}
"""The least and the largest value of fields, for each section of `config.loss`."""

CONTRASTS = ("nce", "pne")
"""Sections that a recipe may lack. They count only where their weight is not 0."""


def check_losses(config: ConfigDict, num_maps: int) -> None:
    """Raises UserError where a loss cannot be computed with the value of a field of `config.loss`.

    Args:
      config: the whole recipe.
      num_maps: how many maps the encoder gives.
    """
    check_segmentation(config.loss.segmentation, config.model.num_classes)
    check_queries(config.loss.segmentation.get("capacity", 0), config.model.decoder)
    for section in CONTRASTS:
        if section in config.loss and config.loss[section].weight:
            check_limits(section, config.loss[section])
            check_level(section, config.loss[section].level, num_maps)
    contrast = config.loss.get("nce")
    if contrast and contrast.weight:
        choose(patch_labels.CHOICES, contrast.labels, "loss.nce.labels")
        cross_frame_nce.num_groups(contrast, config.train.batch)
        cross_frame_nce.strip_rows(contrast.block, patches=1)
    if "pne" in config.loss and config.loss.pne.weight:
        choose(pne.FORMS, config.loss.pne.form, "loss.pne.form")


def check_level(section: str, level: int, num_maps: int) -> None:
    """Raises UserError where a loss would read a map that the encoder does not give."""
    if level not in range(num_maps):
        raise UserError(f"loss.{section}.level is {level}: expected 0 to {num_maps - 1}.")


def check_segmentation(fields: ConfigDict, num_classes: int) -> None:
    """Raises UserError where a field of `config.loss.segmentation` has an impossible value."""
    check_limits("segmentation", fields)
    if "void" in fields:
        choose(segmentation.COUNTED, fields.void, "loss.segmentation.void")
    else:
        choose(per_pixel.AVERAGED_OVER, fields.averaged_over, "loss.segmentation.averaged_over")
        per_pixel.check_weights(fields.class_weight, num_classes)


def check_queries(capacity: int, decoder: ConfigDict) -> None:
    """Raises UserError where a frame may hold more classes than the decoder has queries."""
    queries = decoder.get("num_queries", capacity)
    if capacity > queries:
        raise UserError(
            f"loss.segmentation.capacity is {capacity}, but model.decoder.num_queries is {queries}: every class of a "
            f"frame needs a query of its own. Set --config.model.decoder.num_queries={capacity} or more, or lower "
            "the capacity."
        )


def check_limits(section: str, fields: ConfigDict) -> None:
    """Raises UserError where a field lies outside of its `LIMITS`, or is not a number (NaN)."""
    for name, (least, most) in LIMITS[section].items():
        if name in fields and not least <= fields[name] <= most:
            wanted = f"at least {least:g}" if most == math.inf else f"{least:g} to {most:g}"
            raise UserError(f"loss.{section}.{name} is {fields[name]}: expected {wanted}.")
