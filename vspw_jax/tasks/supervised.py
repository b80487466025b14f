"""Learning from labelled clips: a segmentation loss, and losses on features where the config has them.

Shapes: B clips, T frames, N = B*T images, H and W pixels, L predictions of a query decoder.
"""

import copy
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.data import labelled_frames, views
from vspw_jax.losses import checks, clusters, cross_frame_nce, per_pixel, pne, segmentation
from vspw_jax.models import segmenter
from vspw_jax.models.segmenter import Outputs, Segmenter
from vspw_jax.parallel.mesh import DATA_AXES

Batch = dict[str, Array]
Labels = Int[Array, "B T H W"]
Keys = Key[Array, " B"]
Step = int | Int[Array, ""]
Terms = dict[str, Float[Array, ""]]


def total(x: Array) -> Array:
    """The sum over devices."""
    return lax.psum(x, DATA_AXES)


def of_last(x_BTHW: Array, like_BT: Array) -> Array:
    """Of each clip the last frames, as many as another array has: a decoder may give outputs of these alone."""
    return x_BTHW[:, x_BTHW.shape[1] - like_BT.shape[1] :]


def mask_terms(outputs: Outputs, label_BTHW: Labels, key_B: Keys, step: Step, config: ConfigDict) -> Terms:
    """Loss terms of a query decoder."""
    frames = label_BTHW.shape[1]
    key_N = jax.vmap(lambda key: jax.random.split(key, frames))(key_B).reshape(-1)
    class_logits, mask_logits = (
        outputs[name].reshape(outputs[name].shape[0], -1, *outputs[name].shape[3:])
        for name in ("layer_class_logits_LBTQC", "layer_mask_logits_LBTQHW")
    )
    label_NHW = label_BTHW.reshape(-1, *label_BTHW.shape[2:])
    return segmentation.mask_classification_loss(class_logits, mask_logits, label_NHW, key_N, config, total)


def pixel_terms(outputs: Outputs, label_BTHW: Labels, key_B: Keys, step: Step, config: ConfigDict) -> Terms:
    """Loss terms of a per-pixel decoder, and of its first pass and its auxiliary head where it has them."""
    label_BTHW = of_last(label_BTHW, outputs["logits_BTHWC"])
    label_NHW = label_BTHW.reshape(-1, *label_BTHW.shape[2:])
    names = {
        "pixel": "logits_BTHWC",
        "first_pass": "first_pass_logits_BTHWC",
        "auxiliary": "auxiliary_logits_BTHWC",
    }
    logits_of = {
        term: outputs[name].reshape(-1, *outputs[name].shape[2:]) for term, name in names.items() if name in outputs
    }
    options = (label_NHW, config.averaged_over, config.class_weight, total)
    return {term: per_pixel.cross_entropy(logits_NHWC, *options) for term, logits_NHWC in logits_of.items()}


def memory_terms(outputs: Outputs, label_BTHW: Labels, key_B: Keys, step: Step, config: ConfigDict) -> Terms:
    """Those of a per-pixel decoder, and from `memory_start_step` on the classification of its memory's rows.

    A row should be classified as its own class. Rows of classes that were never seen do not count. Every device has the
    same rows, so each takes its share of the term.
    """
    logits_KC, valid_K = outputs["memory_logits_KC"], outputs["memory_valid_K"]
    wrong_K = jax.nn.logsumexp(logits_KC, axis=-1) - jnp.diagonal(logits_KC)
    mean = jnp.where(valid_K, wrong_K, 0.0).sum() / jnp.maximum(valid_K.sum(), 1)
    on = step >= config.memory_start_step
    terms = pixel_terms(outputs, label_BTHW, key_B, step, config)
    return terms | {"memory": jnp.where(on, mean, 0.0) / lax.axis_size(DATA_AXES)}


def cluster_terms(outputs: Outputs, label_BTHW: Labels, key_B: Keys, step: Step, config: ConfigDict) -> Terms:
    """Those of a per-pixel decoder, and what pulls its clusters to class vectors where the pass gives these."""
    terms = pixel_terms(outputs, label_BTHW, key_B, step, config)
    if "clusters_KGC" not in outputs:
        return terms
    vectors_NKC, present_NK = (
        outputs[name].reshape(-1, *outputs[name].shape[2:]) for name in ("class_vectors_BTKC", "class_present_BTK")
    )
    return terms | {"clusters": clusters.nearest_mse(vectors_NKC, outputs["clusters_KGC"], present_NK, total)}


SEGMENTATION_TERMS = {
    "mask_classification": mask_terms,
    "per_pixel": pixel_terms,
    "memory_per_pixel": memory_terms,
    "clustered_per_pixel": cluster_terms,
}
"""By the loss that a decoder is trained with: `Decoder.SEGMENTATION_LOSS`."""


def ramp(config: ConfigDict, step: Int[Array, ""]) -> Float[Array, ""]:
    """The share of a term's weight at a step: 0 before `start_step`, then it grows to 1 within `warmup_steps`."""
    return jnp.clip((step - config.start_step + 1) / max(config.warmup_steps, 1), 0.0, 1.0)


def contrast_features(outputs: Outputs, level: int) -> Float[Array, "B T h w C"]:
    """Features for contrastive losses: the projection head's where the model has one, else an encoder map."""
    return outputs.get("projection_BTHWC", outputs["encoder"][level])


def nce_term(outputs: Outputs, batch: Batch, key_B: Keys, config: ConfigDict) -> Float[Array, ""]:
    """The cross-frame contrastive loss, unweighted; patches of unrelated frames are not contrasted."""
    features = contrast_features(outputs, config.level)
    label_BTHW = jnp.where(batch["is_clip_B"][:, None, None, None], batch["label_BTHW"], VOID)
    return cross_frame_nce.batch_loss(
        features,
        of_last(label_BTHW, features),
        key_B,
        config,
        device=lax.axis_index(DATA_AXES),
        devices=lax.axis_size(DATA_AXES),
        gather=lambda x: lax.all_gather(x, DATA_AXES, tiled=True),
    )


def pne_term(outputs: Outputs, batch: Batch, key_B: Keys, config: ConfigDict) -> Float[Array, ""]:
    """The positive-negative equal loss, unweighted, on the predictions of the segmenter."""
    features, scores = contrast_features(outputs, config.level), segmenter.cell_scores(outputs)
    scores /= scores.sum(axis=-1, keepdims=True)  # A query decoder's do not add up to 1.
    features, label_BTHW = of_last(features, scores), of_last(batch["label_BTHW"], scores)
    return pne.batch_loss(features, scores, label_BTHW, key_B, config, total)


CONTRASTIVE_TERMS = {"nce": nce_term, "pne": pne_term}
"""Losses on features. A loss is on where its weight in the config is not 0."""


def of_part(loss: ConfigDict, accumulate: int) -> ConfigDict:
    """`config.loss` for one part of an accumulated batch, which has its share of the contrastive groups.

    Raises:
      UserError: the groups do not divide.
    """
    contrast = loss.get("nce")
    if accumulate == 1 or not contrast or not contrast.weight or contrast.scope != "group":
        return loss
    if loss.nce.groups % accumulate:
        raise UserError(
            f"loss.nce.groups is {loss.nce.groups}, which does not divide into train.accumulate={accumulate} parts: "
            "the clips of a group would not all be in one part. Set --config.loss.nce.groups to a multiple of "
            f"{accumulate}."
        )
    loss = copy.deepcopy(loss).unlock()
    loss.nce.groups //= accumulate
    return loss


class Supervised:
    """The task: see `Task`. `config.loss` has the terms and their weights."""

    needs_teacher: ClassVar[bool] = False
    predicts: ClassVar[bool] = True
    figures: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """See `Task`."""
        decoder = segmenter.decoder_of(config.model)
        checks.check_losses(config, len(segmenter.maps_of(config.model)), decoder.SEGMENTATION_LOSS)
        cls._check_views(config)
        cls._check_frames(config)
        cls._check_reference(config, decoder.reads_reference(config.model.decoder))
        cls._check_labels(config)
        cls._check_images(config)

    @staticmethod
    def _check_views(config: ConfigDict) -> None:
        """Raises UserError where a view would show some of a clip's frames alone."""
        if views.scheme(config.data).divide_frames:
            raise UserError(
                f"data.views is {config.data.views!r}, whose views have different frames of a clip, but task.name is "
                f"{config.task.name!r}, which learns from whole clips. Set --config.data.views=one."
            )

    @staticmethod
    def _check_frames(config: ConfigDict) -> None:
        """Raises UserError where clips have fewer frames than the decoder learns from."""
        decoder = config.model.decoder
        least = segmenter.decoder_of(config.model).least_frames(decoder)
        if config.data.frames < least:
            raise UserError(
                f"data.frames is {config.data.frames}: expected {least} or more, as {decoder.name} learns from a frame "
                f"and those before it. Set --config.data.frames={least}."
            )

    @classmethod
    def _check_labels(cls, config: ConfigDict) -> None:
        """Raises UserError where clips lack the label of what is decoded, or have none and nothing learns from them."""
        decoder, data = config.model.decoder, config.data
        decoded = segmenter.decoder_of(config.model).decoded_frames(decoder, data.frames)
        if labelled_frames.is_sparse(data) and decoded < data.frames and data.chosen != "last":
            raise UserError(
                f"{decoder.name} learns from the last frame of a clip, and with data.labelled_frames="
                f"{data.labelled_frames} a clip's labelled frame is its {data.chosen}. Set --config.data.chosen=last."
            )
        if data.unlabelled_share and not cls.needs_teacher:
            raise UserError(
                f"data.unlabelled_share is {data.unlabelled_share:g}, but task.name is {config.task.name!r}, in which "
                "nothing learns from clips without labels. Set --config.data.unlabelled_share=0, or take a recipe with "
                "a teacher."
            )

    @staticmethod
    def _check_images(config: ConfigDict) -> None:
        """Raises UserError where a pass has too few images for the decoder's batch norms."""
        decoder, train = config.model.decoder, config.train
        kind = segmenter.decoder_of(config.model)
        decoded = kind.decoded_frames(decoder, config.data.frames)
        images = train.batch // train.accumulate * decoded
        if images < kind.least_images(decoder):
            raise UserError(
                f"A pass in training has {images} image (train.batch {train.batch}, train.accumulate "
                f"{train.accumulate}, {decoded} decoded of data.frames {config.data.frames}): expected 2 or more, as "
                f"{decoder.name} normalises the means of images. Set --config.train.batch={2 * train.accumulate}."
            )

    @staticmethod
    def _check_reference(config: ConfigDict, reads: bool) -> None:
        """Raises UserError where clips have a reference frame that nothing reads, or lack the one that is read."""
        name, distance = config.model.decoder.name, tuple(config.data.reference_distance)
        if reads and not distance:
            raise UserError(
                f"data.reference_distance is (): expected how far a clip's first frame is from the others, as {name} "
                "takes it for a reference. Set --config.data.reference_distance='(10, 60)'."
            )
        if distance and not reads:
            raise UserError(
                f"data.reference_distance is {distance}: expected (), as {name}, as it is set, reads no reference "
                "frame. Set --config.data.reference_distance='()'."
            )

    def __init__(self, config: ConfigDict) -> None:
        self._decoder_loss = segmenter.decoder_of(config.model).SEGMENTATION_LOSS
        self._config = of_part(config.loss, config.train.accumulate)
        self._part = config.train.batch // config.train.accumulate

    def contrast_groups(self) -> int:
        """See `Task`."""
        contrast = self._config.get("nce")
        return cross_frame_nce.num_groups(contrast, self._part) if contrast and contrast.weight else 0

    def losses(
        self,
        model: Segmenter,
        teacher: Segmenter | None,
        batch: Batch,
        key_B: Keys,
        step: Int[Array, ""],
        rate: Float[Array, ""],
    ) -> Terms:
        """See `Task`."""
        model_keys, loss_keys = jnp.moveaxis(jax.vmap(jax.random.split)(key_B), 1, 0)
        outputs = self._outputs(model, batch["image_BTHWC"], batch, model_keys, step, rate)
        return clip_losses(outputs, batch, loss_keys, step, self._decoder_loss, self._config)

    def _outputs(
        self,
        model: Segmenter,
        image_BTHWC: Float[Array, "B T H W 3"],
        batch: Batch,
        key_B: Keys | None,
        step: Int[Array, ""],
        rate: Float[Array, ""],
    ) -> Outputs:
        """Those of a pass in training over a view of a batch's clips."""
        return model(image_BTHWC, train=True, key_B=key_B, label_BTHW=batch["label_BTHW"], step=step, rate=rate)


def clip_losses(
    outputs: Outputs, batch: Batch, key_B: Keys, step: Int[Array, ""], decoder_loss: str, config: ConfigDict
) -> Terms:
    """Weighted loss terms of this device's clips, by name.

    Args:
      decoder_loss: a key of `SEGMENTATION_TERMS`.
      config: `config.loss`.
    """
    terms = SEGMENTATION_TERMS[decoder_loss](outputs, batch["label_BTHW"], key_B, step, config.segmentation)
    losses = {name: config.weight * config.segmentation.weights[name] * term for name, term in terms.items()}
    for name, contrastive_term in CONTRASTIVE_TERMS.items():
        if name in config and config[name].weight:
            value = contrastive_term(outputs, batch, key_B, config[name])
            losses[name] = config[name].weight * ramp(config[name], step) * value
    return losses
