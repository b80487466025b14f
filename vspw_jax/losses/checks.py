"""What can be wrong with a recipe's losses, found before anything is compiled."""

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.losses import cross_frame_nce, patch_labels, per_pixel, pne, segmentation

SEGMENTATION: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mask_classification": (
        ("weights", "matching", "no_object_weight", "num_points", "oversample", "importance", "void", "capacity"),
        ("cls", "mask", "dice"),
    ),
    "per_pixel": (("weights", "averaged_over", "class_weight", "class_weight_from"), ("pixel", "auxiliary")),
    "memory_per_pixel": (
        (
            *("weights", "averaged_over", "class_weight", "class_weight_from"),
            *("memory_start_step", "memory_start_epoch"),
        ),
        ("pixel", "first_pass", "auxiliary", "memory"),
    ),
    "clustered_per_pixel": (
        ("weights", "averaged_over", "class_weight", "class_weight_from"),
        ("pixel", "auxiliary", "clusters"),
    ),
}
"""Fields of `loss.segmentation`, and the terms that have weights, by the loss that a decoder is trained with."""

CONTRASTS = ("nce", "pne")
"""Sections that a recipe may lack. They count only where their weight is not 0."""


def check_losses(config: ConfigDict, num_maps: int, kind: str) -> None:
    """Raises UserError where a loss cannot be computed with the value of a field of `config.loss`.

    Args:
      config: the whole recipe.
      num_maps: how many maps the encoder gives.
      kind: the loss that the decoder is trained with, a key of `SEGMENTATION`.
    """
    if "segmentation" not in config.loss:
        raise UserError(
            f"The recipe has no section loss.segmentation, which the task {config.task.name} learns from. Take it from "
            f"configs/parts/losses.py: losses.{kind}()."
        )
    check_kind(kind, config.loss.segmentation, config.model.decoder.name)
    check_weights(config.loss)
    check_segmentation(config.loss.segmentation, config.model.num_classes)
    check_queries(config.loss.segmentation.get("capacity", 0), config.model.decoder)
    check_clusters(config.loss.segmentation.weights.get("clusters", 0), config.model.decoder)
    for section in CONTRASTS:
        if section in config.loss and config.loss[section].weight:
            check_level(section, config.loss[section].level, num_maps)
    contrast = config.loss.get("nce")
    if contrast and contrast.weight:
        choose(patch_labels.CHOICES, contrast.labels, "loss.nce.labels")
        cross_frame_nce.num_groups(contrast, config.train.batch)
        cross_frame_nce.strip_rows(contrast.block, patches=1)
    if "pne" in config.loss and config.loss.pne.weight:
        choose(pne.FORMS, config.loss.pne.form, "loss.pne.form")


def check_kind(kind: str, fields: ConfigDict, decoder: str) -> None:
    """Raises UserError where `loss.segmentation` does not have the fields and terms of the decoder's loss."""
    names, terms = SEGMENTATION[kind]
    tables = [table for table in ("weights", "matching") if table in names]
    for section, wanted in [("", names), *((f".{table}", terms) for table in tables)]:
        found = fields[section[1:]] if section else fields
        if set(found) != set(wanted):
            raise UserError(
                f"loss.segmentation{section} has {', '.join(found) or 'nothing'}: expected {', '.join(wanted)}, as "
                f"model.decoder.name is {decoder!r}. Take the section from configs/parts/losses.py: losses.{kind}()."
            )


def check_weights(loss: ConfigDict) -> None:
    """Raises UserError where every term's weight is 0: nothing would be learnt."""
    weighs = loss.weight and any(loss.segmentation.weights.values())
    if not weighs and not any(loss[section].weight for section in CONTRASTS if section in loss):
        raise UserError(
            f"Every weight of the loss is 0: loss.weight is {loss.weight}, loss.segmentation.weights are "
            f"{loss.segmentation.weights.to_dict()}. Expected one above 0, such as --config.loss.weight=1."
        )


def check_level(section: str, level: int, num_maps: int) -> None:
    """Raises UserError where a loss would read a map that the encoder does not give."""
    if level not in range(num_maps):
        raise UserError(f"loss.{section}.level is {level}: expected 0 to {num_maps - 1}.")


def check_segmentation(fields: ConfigDict, num_classes: int) -> None:
    """Raises UserError where a field of `config.loss.segmentation` has an impossible value."""
    if "void" in fields:
        choose(segmentation.COUNTED, fields.void, "loss.segmentation.void")
    else:
        choose(per_pixel.AVERAGED_OVER, fields.averaged_over, "loss.segmentation.averaged_over")
        per_pixel.check_weights(fields.class_weight, num_classes)
        if len(fields.class_weight) and fields.class_weight_from:
            raise UserError(
                f"loss.segmentation.class_weight has {len(fields.class_weight)} weights, and class_weight_from is "
                f"{fields.class_weight_from!r}: expected one of the two. Leave one out: "
                "--config.loss.segmentation.class_weight_from=''."
            )


def check_queries(capacity: int, decoder: ConfigDict) -> None:
    """Raises UserError where a frame may hold more classes than the decoder has queries."""
    queries = decoder.get("num_queries", capacity)
    if capacity > queries:
        raise UserError(
            f"loss.segmentation.capacity is {capacity}, but model.decoder.num_queries is {queries}: every class of a "
            f"frame needs a query of its own. Set --config.model.decoder.num_queries={capacity} or more, or lower "
            "the capacity."
        )


def check_clusters(weight: float, decoder: ConfigDict) -> None:
    """Raises UserError where the loss of clusters has a weight, but the decoder has no clusters that it would pull."""
    if weight and not decoder.clusters:
        raise UserError(
            f"loss.segmentation.weights.clusters is {weight}, but model.decoder.clusters is 0: there is nothing to "
            "pull. Set --config.model.decoder.clusters=3, or --config.loss.segmentation.weights.clusters=0."
        )
    if weight and decoder.cluster_update == "ema":
        raise UserError(
            f"loss.segmentation.weights.clusters is {weight}, but model.decoder.cluster_update is 'ema': no loss pulls "
            "such clusters. Set --config.loss.segmentation.weights.clusters=0, or "
            "--config.model.decoder.cluster_update=mse."
        )
