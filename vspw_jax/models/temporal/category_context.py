"""What a frame's pixels attend to in paper 002: class vectors of a far reference frame or of itself, and clusters.

A frame's class vectors are gathered by its own soft prediction, as OCRNet's regions: `decoders/ocrnet.gather_regions`.
Those of a reference frame are the reference-frame context (RFCE), those of the frame itself the baseline (QFCE). The
global category context (GCC) is a few clusters for each class, learned over all of the training set.

Source: Simultaneously Short- and Long-Term Temporal Modeling for Semi-Supervised Video Semantic Segmentation (Lao et
al., CVPR 2023), abstract and supplementary, sections 2.1 and 2.6, which give the parts' names and no formula.
Shapes: N images or views, K classes, G clusters of a class, C channels, Q places in a queue.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vspw_jax.models import layers
from vspw_jax.models.memory import Memory, Seen, summed
from vspw_jax.models.temporal import frame_queue
from vspw_jax.models.temporal.feature_memory import update

Vectors = Float[Array, "N K C"]

CONTEXTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "query": ("query",),
    "reference": ("reference",),
    "both": ("reference", "query"),
}
"""Whose class vectors a frame's pixels attend to, by `model.decoder.context`."""

REFERENCES = dict.fromkeys(("first", "distance"))
"""Which frame is the reference at inference: a video's first, or the one at a distance before."""

CLUSTER_UPDATES = dict.fromkeys(("mse", "ema"))
"""How clusters learn: by gradients, those of a loss that pulls them among them, or as a moving average."""


def classes_present(label_NHW: Int[Array, "N H W"], num_classes: int) -> Bool[Array, "N K"]:
    """Which classes images have by their labels; void is none."""
    return (label_NHW.reshape(len(label_NHW), -1, 1) == jnp.arange(num_classes)).any(axis=1)


@dataclasses.dataclass(frozen=True)
class Reference:
    """The reference frame at inference, kept as class vectors alone.

    Attributes:
      rule: a key of `REFERENCES`.
      distance: of "distance", in frames. Nearer to a video's start than that the reference is its first frame.
    """

    rule: str
    distance: int

    def none_yet(self, vectors_NKC: Vectors) -> frame_queue.Queue:
        """What is kept before a first frame; of the vectors only the shape counts."""
        return frame_queue.empty(vectors_NKC, 1 if self.rule == "first" else self.distance)

    def next_frame(
        self, vectors_NKC: Vectors, kept_NQKC: frame_queue.Queue, is_first_N: Bool[Array, " N"]
    ) -> tuple[Vectors, frame_queue.Queue]:
        """(class vectors of the next frame's reference, what is kept after it)."""
        kept = frame_queue.begun(kept_NQKC, vectors_NKC, is_first_N)
        after = kept if self.rule == "first" else frame_queue.pushed(kept, vectors_NKC)
        return kept[:, 0].astype(vectors_NKC.dtype), after


class Lesson(NamedTuple):
    """What class vectors of one pass, on all devices, teach clusters: see `Clusters.settle`."""

    sums_KGC: Float[Array, "K G C"]
    counts_KG: Float[Array, "K G"]
    momentum: Float[Array, ""]


class Clusters(nnx.Module):
    """The global category context: `count` vectors of each class.

    Under "mse" they are weights. Under "ema" no gradient trains them: each moves towards the class vectors that it is
    nearest to. The first that a cluster sees set it, and a class's clusters that have seen none come first; else one
    cluster, once it had moved, would be the nearest for ever.

    Args:
      update: a key of `CLUSTER_UPDATES`.
    """

    def __init__(self, num_classes: int, count: int, dim: int, update: str, *, rngs: nnx.Rngs) -> None:
        drawn = layers.normal_02(rngs.params(), (num_classes, count, dim))
        self.learns_itself = update == "ema"
        self.rows_KGC = Memory(drawn) if self.learns_itself else nnx.Param(drawn)
        self.valid_KG = Memory(jnp.zeros((num_classes, count), bool)) if self.learns_itself else None

    def for_images(self, vectors_NKC: Vectors) -> Float[Array, "N KG C"]:
        """All clusters for each image, in the type of the images' own class vectors.

        Under "ema", in the place of a cluster that has seen nothing yet stands its class's first, which is the first to
        see anything, and where that has seen nothing the image's own class vector.
        """
        rows_KGC = self.rows_KGC[...].astype(vectors_NKC.dtype)
        clusters_NKGC = jnp.broadcast_to(rows_KGC, (len(vectors_NKC), *rows_KGC.shape))
        if self.valid_KG is not None:
            valid_KG1 = self.valid_KG[...][..., None]
            first_NK1C = jnp.where(valid_KG1[:, :1], rows_KGC[:, :1], vectors_NKC[:, :, None])
            clusters_NKGC = jnp.where(valid_KG1, clusters_NKGC, first_NK1C)
        return clusters_NKGC.reshape(len(vectors_NKC), -1, vectors_NKC.shape[-1])

    def learn(self, vectors_NKC: Vectors, present_NK: Bool[Array, "N K"], momentum: float | Float[Array, ""]) -> None:
        """Sees class vectors of all devices' images, for `settle`; only in training, and only under "ema".

        Args:
          present_NK: which of them count.
          momentum: how far a cluster moves towards the mean of what it is nearest to, 0 to 1.
        """
        vectors_NKC = lax.stop_gradient(vectors_NKC).astype(jnp.float32)
        distance_NKG = jnp.square(vectors_NKC[:, :, None] - self.rows_KGC[...]).sum(axis=-1)
        assert self.valid_KG is not None
        nearest_NK = jnp.where(self.valid_KG[...], distance_NKG, -1.0).argmin(axis=-1)
        of_cluster_NKG = jax.nn.one_hot(nearest_NK, distance_NKG.shape[-1]) * present_NK[..., None]
        sums_KGC = jnp.einsum("nkg,nkc->kgc", of_cluster_NKG, vectors_NKC, precision="highest")
        sums_KGC, counts_KG = summed((sums_KGC, of_cluster_NKG.sum(axis=0)))
        self.seen = Seen(Lesson(sums_KGC, counts_KG, jnp.asarray(momentum, jnp.float32)))

    def settle(self, lessons: Lesson) -> None:
        """Moves the clusters by what the passes of a step have seen, stacked."""
        assert self.valid_KG is not None
        rows_KGC, valid_KG = self.rows_KGC[...], self.valid_KG[...]
        counts_KG = lessons.counts_KG.sum(axis=0)
        mean_KGC = lessons.sums_KGC.sum(axis=0) / jnp.maximum(counts_KG, 1)[..., None]
        moved_KGC = jnp.where(valid_KG[..., None], update(rows_KGC, mean_KGC, lessons.momentum[0]), mean_KGC)
        self.rows_KGC[...] = jnp.where((counts_KG > 0)[..., None], moved_KGC, rows_KGC)
        self.valid_KG[...] = valid_KG | (counts_KG > 0)
