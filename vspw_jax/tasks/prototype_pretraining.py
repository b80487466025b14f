"""Pretraining on labelled images of any data sets: pixels pulled to prototypes of their classes, no classifier trained.

Source: Multi-dataset Pretraining (MDP, Shi et al., 2021, arXiv 2106.04121), equations 2 to 8. The teacher is MoCo's key
encoder. It sees both views of every image and fills the bank (`models/banks`) before the loss; the network sees both
views, and a third one: the first mixed with that of another image of the batch. The loss is the weighted mean of those
of the views. Without a bank each view's pixels are contrasted with those of the other view (equation 2).

What the paper leaves open: the network sees all views in one pass, so that a batch norm has one mean for them; the
teacher likewise. Mixed views fill no bank. Labels are those at the centres of the projection's cells. Where a batch
comes in parts, images are mixed within a part.
Shapes: B clips, T frames, V views, N = B*V*T images, P = h*w cells, D channels, K classes, R keys.
"""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixing
from vspw_jax.losses import patch_labels, prototypes
from vspw_jax.losses.cross_frame_nce import unit_length
from vspw_jax.losses.prototypes import Losses
from vspw_jax.models import segmenter
from vspw_jax.models.memory import gathered, summed
from vspw_jax.models.segmenter import Segmenter
from vspw_jax.parallel.mesh import DATA_AXES
from vspw_jax.tasks import prototype_checks

Batch = dict[str, Any]
"""Arrays by name."""
Known = tuple[Float[Array, "... K D"], Bool[Array, "... K"]]
"""What a bank gives: prototypes or rows, and which there are."""

Part = tuple[Float[Array, ""], Float[Array, ""]]
"""Of this device's cells: the weighted sum of their losses, and of their weights."""

PLAIN = {"first": "", "second": "second_"}
"""Views of a clip, and their prefixes in a batch."""


def partners(batch: Batch, key_B: Key[Array, " B"]) -> Batch:
    """For every clip another one of the whole batch, drawn by the clip's key: the same on any number of devices."""
    every = gathered(batch)
    clips, local = len(every["label_BTHW"]), len(key_B)
    number_B = lax.axis_index(DATA_AXES) * local + jnp.arange(local)
    step_B = jax.vmap(lambda key: jax.random.randint(key, (), 1, clips))(key_B)
    return {name: array[(number_B + step_B) % clips] for name, array in every.items()}


def mixed(batch: Batch, key_B: Key[Array, " B"], config: ConfigDict) -> Batch:
    """Every clip mixed with a partner, each by one of `config.mixing`; see `data/mixing.py`."""
    first = {name: batch[name] for name in ("image_BTHWC", "label_BTHW")}
    partner_B, law_B, draw_B = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(key_B), 1, 0)
    laws = [mixing.MIXINGS[name] for name in config.mixing]

    def of_clip(clip: Batch, partner: Batch, law_key: Key[Array, ""], key: Key[Array, ""]) -> Batch:
        clip, partner = (jax.tree.map(lambda x: x[None], x) for x in (clip, partner))
        made = [law(clip, partner, key, config.mixing_alpha) for law in laws]
        chosen = jax.random.randint(law_key, (), 0, len(laws))
        return jax.tree.map(lambda *x: jnp.stack(x)[chosen, 0], *made)

    return jax.vmap(of_clip)(first, partners(first, partner_B), law_B, draw_B)


def projected(model: Segmenter, images: list[Array], key_B: Key[Array, " B"] | None) -> list[Float[Array, "B T h w D"]]:
    """Unit-length features of several views of the same clips, by one pass in training."""
    count = len(images)
    if key_B is not None:
        key_B = jax.vmap(lambda key: jax.random.split(key, count))(key_B).reshape(-1)
    image_BVTHWC = jnp.stack(images, axis=1)
    outputs = model(image_BVTHWC.reshape(-1, *image_BVTHWC.shape[2:]), train=True, key_B=key_B)
    features = unit_length(outputs["projection_BTHWC"])
    return list(jnp.moveaxis(features.reshape(-1, count, *features.shape[1:]), 1, 0))


def of_images(views: list[Array]) -> Array:
    """Cells of all images, clip by clip: [(B, T, h, w, ...)] of views to (N, P, ...)."""
    x = jnp.stack(views, axis=1)
    return x.reshape(-1, x.shape[3] * x.shape[4], *x.shape[5:])


def weighted_sum(losses: Losses, weight_P: Float[Array, " P"] | float = 1.0) -> Part:
    """The losses of the cells that count, by their weights."""
    loss_P, counts_P = losses
    counted_P = counts_P * weight_P
    return (loss_P * counted_P).sum(), counted_P.sum()


class PrototypePretraining:
    """The task: see `Task`. `config.loss.prototypes` has its fields."""

    needs_teacher: ClassVar[bool] = True
    figures: ClassVar[tuple[str, ...]] = ()
    predicts: ClassVar[bool] = False

    @classmethod
    def check(cls, config: ConfigDict) -> None:
        """See `Task`."""
        prototype_checks.check(config)
        decoder = segmenter.decoder_of(config.model)
        if decoder.least_frames(config.model.decoder) > 1:
            raise UserError(
                f"model.decoder.name is {config.model.decoder.name!r}, which learns from a frame and those before it: "
                f"expected a decoder of single frames for the task {prototype_checks.TASK}, such as deeplabv3."
            )

    def __init__(self, config: ConfigDict) -> None:
        self._config = config.loss.prototypes
        self._bank = config.model.bank.kind
        self._weight = config.loss.weight / sum(self._config.weights.values())

    def contrast_groups(self) -> int:
        """See `Task`."""
        return 0

    def losses(
        self,
        model: Segmenter,
        teacher: Segmenter | None,
        batch: Batch,
        key_B: Key[Array, " B"],
        step: Int[Array, ""],
        rate: Float[Array, ""],
    ) -> dict[str, Float[Array, ""]]:
        """See `Task`."""
        assert teacher is not None  # `needs_teacher`.
        mixing_B, model_B = jnp.moveaxis(jax.vmap(jax.random.split)(key_B), 1, 0)
        plain = [batch[f"{prefix}image_BTHWC"] for prefix in PLAIN.values()]
        labels = [batch[f"{prefix}label_BTHW"] for prefix in PLAIN.values()]
        third = mixed(batch, mixing_B, self._config) if self._config.weights.mixed else None

        keys = lax.stop_gradient(projected(teacher, plain, None))
        queries = projected(model, plain if third is None else [*plain, third["image_BTHWC"]], model_B)
        at_cells = lambda x_BTHW: patch_labels.centre(x_BTHW, *queries[0].shape[2:4])
        labels = [at_cells(label) for label in labels]
        if self._bank == "none":
            return self.means(self.against_the_other_view(queries, keys, labels))
        known = model.bank.see(of_images(keys), of_images(labels))
        parts = {
            name: weighted_sum(self.of_view(name, queries[view], labels[view], known))
            for view, name in enumerate(PLAIN)
        }
        if third is not None:
            cells = {name: at_cells(third[name]) for name in ("label_BTHW", "other_label_BTHW", "weight_BTHW")}
            parts["mixed"] = self.of_mixed(queries[2], cells, known)
        return self.means(parts)

    def means(self, parts: dict[str, Part]) -> dict[str, Float[Array, ""]]:
        """The weighted terms of the views, means over the cells of all devices, from this device's parts."""
        terms = {}
        for name, (value, count) in parts.items():
            every = summed(count)
            weight = self._weight * self._config.weights[name]
            terms[f"{name}_view"] = weight * value / jnp.where(every > 0, every, 1.0)
        return terms

    def of_view(self, name: str, features_BThwD: Array, label_BThw: Array, known: Known) -> Losses:
        """Every cell's loss by what the bank gives: equation 4, or 8 where the view has sparse coding."""
        features_PD, labels_P = features_BThwD.reshape(-1, features_BThwD.shape[-1]), label_BThw.reshape(-1)
        temperature, (rows, valid) = self._config.temperature, known
        if self._bank == "region":
            label_RK = jnp.where(valid, jnp.arange(valid.shape[-1]), VOID)
            return prototypes.pixel_losses(
                features_PD, labels_P, rows.reshape(-1, rows.shape[-1]), label_RK.reshape(-1), temperature
            )
        sparse = name in self._config.sparse_views
        options = (self._config.alpha, self._config.top, self._config.own_in_top) if sparse else ()
        return prototypes.prototype_losses(features_PD, labels_P, rows, valid, temperature, *options)

    def of_mixed(self, features_BThwD: Array, cells: Batch, known: Known) -> Part:
        """Equation 7: each cell's loss by either label, by the label's share."""
        own, other = mixing.own_and_other_weights(cells)
        parts = [
            weighted_sum(self.of_view("mixed", features_BThwD, cells[name], known), weight.reshape(-1))
            for name, weight in (("label_BTHW", own), ("other_label_BTHW", other))
        ]
        (value, count), (other_value, other_count) = parts
        return value + other_value, count + other_count

    def against_the_other_view(self, queries: list[Array], keys: list[Array], labels: list[Array]) -> dict[str, Part]:
        """Equation 2, image by image: the cells of each view against those of the other view by the teacher."""
        of_image = jax.vmap(functools.partial(prototypes.pixel_losses, temperature=self._config.temperature))
        query, key, label = ([of_images([x]) for x in views] for views in (queries, keys, labels))
        return {
            name: weighted_sum(of_image(query[view], label[view], key[1 - view], label[1 - view]))
            for view, name in enumerate(PLAIN)
        }
