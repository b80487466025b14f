"""Learning from clips without labels by a teacher, the average of the network's weights, which labels them.

A student learns the labels that there are from the weak view of the labelled clips, and of the unlabelled clips the
teacher's pseudo-labels: of the weak view the teacher's most likely class, where it is sure enough, which the student
should find in the strong view. One pass of the student has both kinds of clips, and one of the teacher the weak view of
all; the teacher normalises by its own batch and keeps its own statistics (`ema.statistics` "own"). Its scores are those
of evaluation: logits of a coarse map get the size of the finest one before the softmax.

Source: Mean Teacher (arXiv 1703.01780), with hard labels of confident pixels as in UniMatch (LiheYoung/UniMatch
unimatch.py) and U2PL (Haochen-Wang409/U2PL train_semi.py). Paper 002 names Mean Teacher and gives no setting.
Shapes: B clips, T frames, N images, H and W pixels, h and w cells, K classes.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, choose
from vspw_jax.data.views import UNLABELLED
from vspw_jax.models import segmenter
from vspw_jax.models.segmenter import Segmenter
from vspw_jax.tasks import supervised
from vspw_jax.tasks.supervised import Batch, Keys, Labels, Terms, total

AVERAGED_OVER = {"valid": True, "confident": False}
"""Whether the term is divided by all pixels that could have a pseudo-label, as in UniMatch: it then counts as much as
the teacher is sure. Else by those that have one."""
TERMS = {"mask_classification": supervised.mask_terms}
"""Terms of pseudo-labels by `Decoder.SEGMENTATION_LOSS`; of all others `pixel_terms`: what pulls a memory's rows or
clusters has no label of a pixel in it and counts once, with the labels."""


def image_labels(
    score_hwK: Float[Array, "h w K"], shown_HW: Bool[Array, "H W"], threshold: float, most_classes: int | None = None
) -> Int[Array, "H W"]:
    """The pseudo-label of an image, void where the teacher is less sure than `threshold`.

    Args:
      score_hwK: of the classes, which are resized to the pixels; how sure is a pixel's highest share of its sum.
      shown_HW: pixels that may have a label.
      most_classes: that a label may hold; of more those with most pixels stay. None is any number.
    """
    num_classes = score_hwK.shape[-1]
    score_HWK = jax.image.resize(score_hwK, (*shown_HW.shape, num_classes), "bilinear", antialias=False)
    sure_HW = score_HWK.max(axis=-1) >= threshold * score_HWK.sum(axis=-1)
    label_HW = jnp.where(shown_HW & sure_HW, score_HWK.argmax(axis=-1), VOID)
    if most_classes is None or most_classes >= num_classes:
        return label_HW
    pixels_K = jnp.zeros(max(num_classes, VOID + 1), jnp.int32).at[label_HW].add(1).at[VOID].set(0)
    _, kept = lax.top_k(pixels_K, most_classes)
    stays_K = jnp.zeros(len(pixels_K), bool).at[kept].set(True)
    return jnp.where(stays_K[label_HW], label_HW, VOID)


def pseudo_labels(
    scores_BThwK: Float[Array, "B T h w K"],
    shown_BTHW: Bool[Array, "B T H W"],
    threshold: float,
    most_classes: int | None = None,
) -> Labels:
    """`image_labels` of all frames, one image after the other: scores of all pixels never exist together."""
    scores_NhwK, shown_NHW = (x.reshape(-1, *x.shape[2:]) for x in (scores_BThwK, shown_BTHW))
    of_image = lambda image: image_labels(image[0], image[1], threshold, most_classes)
    return lax.map(of_image, (scores_NhwK, shown_NHW)).reshape(shown_BTHW.shape)


class MeanTeacher(supervised.Supervised):
    """The task: see `Task`. `config.loss` has the terms and their weights, `config.task` those of pseudo-labels.

    `figures`: "confident" is the share of the unlabelled pixels that have a pseudo-label.
    """

    needs_teacher: ClassVar[bool] = True
    figures: ClassVar[tuple[str, ...]] = ("confident",)

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """See `Task`."""
        super().check(config)
        choose(AVERAGED_OVER, config.task.averaged_over, "task.averaged_over")
        if config.data.views != "weak_and_strong":
            raise UserError(
                f"data.views is {config.data.views!r}: expected weak_and_strong, as task.name is "
                f"{config.task.name!r}. Set --config.data.views=weak_and_strong."
            )
        if not config.data.unlabelled_share:
            raise UserError(
                f"data.unlabelled_share is 0, so that a teacher (task.name={config.task.name}) has no clips to label. "
                "Set --config.data.unlabelled_share=0.5, say, or take the recipe without a teacher."
            )
        if config.loss.segmentation.get("averaged_over", "labelled") != "labelled":
            raise UserError(
                "loss.segmentation.averaged_over is 'all', by which clips without labels would weaken the loss. Set "
                "--config.loss.segmentation.averaged_over=labelled."
            )

    def __init__(self, config: ConfigDict) -> None:
        super().__init__(config)
        self._pseudo = config.task

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
        assert teacher is not None
        label_key_B, pseudo_key_B = jnp.moveaxis(jax.vmap(jax.random.split)(key_B), 1, 0)
        guessed = self._outputs(teacher, batch["image_BTHWC"], batch, None, step, rate)
        is_unlabelled_B = batch[UNLABELLED].any(axis=(1, 2, 3))
        weak, strong = batch["image_BTHWC"], batch["strong_image_BTHWC"]
        model_keys, loss_keys = jnp.moveaxis(jax.vmap(jax.random.split)(label_key_B), 1, 0)
        image = jnp.where(is_unlabelled_B[:, None, None, None, None], strong, weak)
        outputs = self._outputs(model, image, batch, model_keys, step, rate)
        terms = supervised.clip_losses(outputs, batch, loss_keys, step, self._decoder_loss, self._config)
        return terms | self._pseudo_terms(
            segmenter.class_scores(guessed), outputs, batch[UNLABELLED], pseudo_key_B, step
        )

    def _pseudo_terms(
        self,
        scores_BThwK: Float[Array, "B T h w K"],
        outputs: segmenter.Outputs,
        shown_BTHW: Bool[Array, "B T H W"],
        key_B: Keys,
        step: Int[Array, ""],
    ) -> Terms:
        """The weighted term of a student's outputs by a teacher's scores, and `figures`."""
        config, fields = self._pseudo, self._config.segmentation
        shown_BTHW = supervised.of_last(shown_BTHW, scores_BThwK)
        labels = pseudo_labels(scores_BThwK, shown_BTHW, config.threshold, fields.get("capacity"))
        label_BTHW = lax.stop_gradient(labels)
        confident = (label_BTHW != VOID).sum().astype(jnp.float32)
        confident /= jnp.maximum(total(shown_BTHW.sum().astype(jnp.float32)), 1.0)
        terms = TERMS.get(self._decoder_loss, supervised.pixel_terms)(outputs, label_BTHW, key_B, step, fields)
        value = sum(fields.weights[name] * term for name, term in terms.items())
        weight = config.weight * supervised.ramp(config, step)
        if AVERAGED_OVER[config.averaged_over]:
            weight *= total(confident)
        return {"pseudo": weight * value, "confident": confident}
