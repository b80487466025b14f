"""The feature memory of paper 001: for every class one representation of its pixels in all of the training set.

Source: Memory Based Video Scene Parsing (Jin et al., 2021), equations 1 to 4; its public forerunner is
SegmentationBLWX/sssegmentation ssseg/modules/models/segmentors/mcibi/memory.py (arXiv 2108.11819). That code lets each
device update a memory of its own and averages the memories. Here sums and counts cross devices and are divided
afterwards, so a memory does not depend on how images lie on devices. Shapes: N images, P pixels, K classes, C channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from vspw_jax.models import layers
from vspw_jax.models.memory import Memory, Seen, largest, summed

Rows = Float[Array, "K C"]

NO_WEIGHT = 1e-12
"""A pixel's weight below this is the rounding of 0: float32 has the direction of its representation to 1e-7."""

FIRST_SIGHTS = dict.fromkeys(("mean", "pixel"))
"""What the row of a class is where the class is first seen: the mean of its pixels then, or one of them, drawn."""


class Sums(NamedTuple):
    """What pixels add to the representations of their classes; those of several images add up."""

    weighted_KC: Rows
    weights_K: Float[Array, " K"]
    plain_KC: Rows
    pixels_K: Float[Array, " K"]


class Pick(NamedTuple):
    """One pixel of each class, that of the largest draw; where a class has none, a draw of 0 and any row."""

    draw_K: UInt32[Array, " K"]
    row_KC: Rows


class Lesson(NamedTuple):
    """What the images of one pass, on all devices, teach: see `FeatureMemory.settle`."""

    sums: Sums
    first: Pick
    momentum: Float[Array, ""]


def _directions(x_PC: Float[Array, "P C"]) -> tuple[Float[Array, "P C"], Bool[Array, " P"]]:
    """(unit vectors, whether there is a direction at all)."""
    length_P = jnp.linalg.norm(x_PC, axis=-1)
    return x_PC / jnp.where(length_P > 0, length_P, 1.0)[:, None], length_P > 0


def unlikeness(features_PC: Float[Array, "P C"], rows_PC: Float[Array, "P C"]) -> Float[Array, " P"]:
    """1 - the cosine of equation 3, 1 where either vector is 0.

    Half the squared distance of the unit vectors is the same number, but does not lose its digits where they are near.
    """
    (one_PC, has_one), (other_PC, has_other) = _directions(features_PC), _directions(rows_PC)
    distance_P = 0.5 * jnp.square(one_PC - other_PC).sum(axis=-1)
    return jnp.where(has_one & has_other, jnp.where(distance_P < NO_WEIGHT, 0.0, distance_P), 1.0)


def class_sums(features_PC: Float[Array, "P C"], labels_P: Int[Array, " P"], memory_KC: Rows) -> Sums:
    """Numerators and denominators of equation 4, and of plain means; labels outside 0..K-1, as void, add nothing."""
    features_PC, memory_KC = features_PC.astype(jnp.float32), memory_KC.astype(jnp.float32)
    of_class_PK = jax.nn.one_hot(labels_P, len(memory_KC))
    weight_P = unlikeness(features_PC, jnp.take(memory_KC, labels_P, axis=0, mode="clip"))
    added_up = lambda of_PK: jnp.einsum("pk,pc->kc", of_PK, features_PC, precision="highest")
    weighted_PK = of_class_PK * weight_P[:, None]
    return Sums(added_up(weighted_PK), weighted_PK.sum(axis=0), added_up(of_class_PK), of_class_PK.sum(axis=0))


def _representations(sums: Sums, memory_KC: Rows) -> Rows:
    has_weight_K = sums.weights_K > 0
    divisor_K = jnp.where(has_weight_K, sums.weights_K, 1.0)
    return jnp.where(has_weight_K[:, None], sums.weighted_KC / divisor_K[:, None], memory_KC)


def class_representations(
    features_PC: Float[Array, "P C"],
    labels_P: Int[Array, " P"],
    memory_KC: Rows,
    total: Callable[[Any], Any] = lambda x: x,
) -> Rows:
    """Equations 2 to 4: each class's pixels averaged, a pixel that is less like the memory's row weighing more.

    Args:
      features_PC: representations of pixels.
      labels_P: their train ids; others than 0..K-1, as void, count for no class.
      total: adds arrays up over devices that share the pixels, such as `memory.summed`.

    Returns:
      float32. The row of a class that no pixel has is the memory's, and so is one whose weights are all 0.
    """
    return _representations(total(class_sums(features_PC, labels_P, memory_KC)), memory_KC)


def update(memory_KC: Rows, representations_KC: Rows, momentum: float | Float[Array, ""]) -> Rows:
    """Equation 1: (1 - m) M + m R, written so that a row that is its own representation stays to the last bit."""
    return memory_KC + momentum * (representations_KC - memory_KC)


def pick(
    features_PC: Float[Array, "P C"], labels_P: Int[Array, " P"], draws_P: UInt32[Array, " P"], num_classes: int
) -> Pick:
    """Of every class the pixel with the largest draw."""
    draws_PK = jnp.where(labels_P[:, None] == jnp.arange(num_classes), draws_P[:, None], 0)
    return Pick(draws_PK.max(axis=0), features_PC[draws_PK.argmax(axis=0)].astype(jnp.float32))


def _added(sums: Sums) -> Sums:
    """The sum of several, stacked."""
    return jax.tree.map(lambda x: x.sum(axis=0), sums)


def _largest_of(picks: Pick) -> Pick:
    """Of several picks, stacked, the one with the largest draw for each class."""
    at_K = picks.draw_K.argmax(axis=0)[None]
    return Pick(
        jnp.take_along_axis(picks.draw_K, at_K, axis=0)[0],
        jnp.take_along_axis(picks.row_KC, at_K[..., None], axis=0)[0],
    )


def _picked_of_all(mine: Pick) -> Pick:
    """The picks of all devices; where two devices drew the same number, the mean of their rows."""
    draw_K = largest(mine.draw_K)
    is_mine_K = (mine.draw_K == draw_K).astype(jnp.float32)
    rows_KC, count_K = summed((is_mine_K[:, None] * mine.row_KC, is_mine_K))
    return Pick(draw_K, rows_KC / count_K[:, None])


class FeatureMemory(nnx.Module):
    """A row for every class, and whether its class was ever seen; a row that was not is never read."""

    def __init__(self, num_classes: int, dim: int) -> None:
        self.rows_KC = Memory(jnp.zeros((num_classes, dim)))
        self.valid_K = Memory(jnp.zeros(num_classes, bool))

    def recall(self, weights_NHWK: layers.Map, features_NHWC: layers.Map) -> layers.Map:
        """The memory's rows, mixed for each pixel by its weights over the classes (C'_bi of paper 001).

        Weight on classes that were never seen reads the pixel's own representation: such classes know no better. No
        gradient passes, to the rows or to what weighs them: a mask is a prediction that was made. (In the released code
        the loss of the result trains the first pass too, through soft weights.)
        """
        dtype = features_NHWC.dtype
        known_NHWK = (lax.stop_gradient(weights_NHWK) * self.valid_K[...]).astype(dtype)
        rows_KC = lax.stop_gradient(self.rows_KC[...]).astype(dtype)
        return known_NHWK @ rows_KC + (1 - known_NHWK.sum(axis=-1, keepdims=True)) * features_NHWC

    def learn(
        self,
        features_NhwC: layers.Map,
        label_NHW: Int[Array, "N H W"],
        momentum: float | Float[Array, ""],
        first_sight: str,
        keys_N: layers.Keys = None,
    ) -> None:
        """Sees the images of all devices, for `settle`; only in training.

        Args:
          features_NhwC: at any size; equation 2 reads them at the labels'.
          first_sight: a key of `FIRST_SIGHTS`. Without keys nothing is drawn, and "pixel" is "mean".
        """
        memory_KC = self.rows_KC[...]
        draws = first_sight == "pixel" and keys_N is not None

        def of_image(inputs: tuple[Array, ...]) -> tuple[Sums, Pick | None]:
            features_hwC, labels_HW, *key = inputs
            full_HWC = layers.resize_bilinear(features_hwC[None], *labels_HW.shape)[0]
            pixels = full_HWC.reshape(-1, full_HWC.shape[-1]), labels_HW.reshape(-1)
            drawn = pick(*pixels, jax.random.bits(key[0], pixels[1].shape), len(memory_KC)) if draws else None
            return class_sums(*pixels, memory_KC), drawn

        # One image at a time: a batch of representations at the labels' size takes gigabytes.
        images = (lax.stop_gradient(features_NhwC).astype(jnp.float32), label_NHW, *((keys_N,) if draws else ()))
        sums, picks = lax.map(of_image, images)
        sums = summed(_added(sums))
        # Without draws none is larger than 0, and the means count.
        first = _picked_of_all(_largest_of(picks)) if draws else Pick(jnp.zeros(len(memory_KC), jnp.uint32), memory_KC)
        self.seen = Seen(Lesson(sums, first, jnp.asarray(momentum, jnp.float32)))

    def settle(self, lessons: Lesson) -> None:
        """Equation 1, with what the passes of a step have seen, stacked. A class's first sight sets its row."""
        memory_KC, valid_K = self.rows_KC[...], self.valid_K[...]
        sums, first = _added(lessons.sums), _largest_of(lessons.first)
        mean_KC = sums.plain_KC / jnp.maximum(sums.pixels_K, 1)[:, None]
        first_KC = jnp.where(first.draw_K[:, None] > 0, first.row_KC, mean_KC)
        later_KC = update(memory_KC, _representations(sums, memory_KC), lessons.momentum[0])
        seen_K = sums.pixels_K > 0
        self.rows_KC[...] = jnp.where(valid_K[:, None], later_KC, jnp.where(seen_K[:, None], first_KC, memory_KC))
        self.valid_K[...] = valid_K | seen_K
