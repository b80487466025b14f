"""What every decoder tells the rest of the program about itself, and what a decoder that remembers adds.

A new decoder is a subclass in a file of its own and a line in `segmenter.DECODERS`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree, UInt8
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.torch_names import DecoderNames

Maps = Sequence[Float[Array, "N h w C"]]
"""Feature maps, fine to coarse; each has a size and a width of its own."""


@dataclasses.dataclass(frozen=True)
class Training:
    """What a pass in training knows beside the maps. Inference has none.

    Attributes:
      frames: T of a clip. The N = B*T images are clip by clip, each clip's frames in their order.
      keys_N: for drop-out and other draws; None for none.
      label_NHW: train ids of the images' pixels, 255 void; None where a pass is given none.
      rate: the learning rate's share of `optimizer.learning_rate`, 0 to 1, as warm-up and decay have it.
      step: counted from 0.
    """

    frames: int = 1
    keys_N: layers.Keys = None
    label_NHW: Int[Array, "N H W"] | None = None
    rate: float | Float[Array, ""] = 1.0
    step: int | Int[Array, ""] = 0

    def of(self, numbers: Sequence[int]) -> "Training":
        """What is known of the frames of these numbers of each clip."""
        cut = lambda x_N: None if x_N is None else layers.frames_of(x_N, self.frames, numbers)
        return dataclasses.replace(self, frames=len(numbers), keys_N=cut(self.keys_N), label_NHW=cut(self.label_NHW))

    def of_last(self, count: int) -> "Training":
        """What is known of the last `count` frames of each clip."""
        return self.of(range(self.frames - count, self.frames))

    def keys(self, data: int) -> layers.Keys:
        """Keys of every image for one of several draws; None for none."""
        return layers.fold_keys(self.keys_N, data)


def keys_of(training: Training | None, data: int) -> layers.Keys:
    """`Training.keys`; None without training."""
    return training.keys(data) if training else None


class Decoder(nnx.Module):
    """Feature maps to a dict of float32 arrays, each named after its axes (`logits_NHWC`).

    `config` is `config.model.decoder` in every method here; `remat` is a key of `layers.REMAT_POLICIES`.
    """

    FIELDS: ClassVar[tuple[str, ...]]
    """The fields of its config besides `name`."""

    PUBLISHED: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """As an encoder's. No size of a decoder has a name of its own."""

    SEGMENTATION_LOSS: ClassVar[str]
    """The loss that trains it: a key of `tasks.supervised.SEGMENTATION_TERMS`."""

    STACKED: ClassVar[dict[str, int]] = {}
    """Like `Encoder.STACKED`, with paths in the decoder."""

    EMBEDDINGS: ClassVar[tuple[str, ...]] = ()
    """Paths of its embeddings and of the heads on them; `optimizer.embeddings_at_layer_0` concerns these."""

    AUXILIARY: ClassVar[str] = ""
    """How the paths of its auxiliary head begin, which only training uses and files may lack; "" where it has none, or
    where predicting uses it too."""

    TORCH_NAMES: ClassVar[DecoderNames] = {}
    """Like `Encoder.TORCH_NAMES`."""

    remembers: ClassVar[bool] = False
    """Whether a frame's result depends on the frames before it: then it has a `memory` and a `look` of its own."""

    reads_masks: ClassVar[bool] = False
    """Whether `look` can read a frame by the mask that an earlier stage of inference made of it."""

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        """Raises UserError where its config makes no network or it cannot read the encoder's maps."""

    @classmethod
    def features_width(cls, config: ConfigDict) -> int:
        """Channels of `features_NHWC`, of which its masks or logits are made."""
        raise NotImplementedError

    @classmethod
    def least_images(cls, config: ConfigDict) -> int:
        """The fewest images of a pass in training: of one alone, a batch norm of an image's mean has no variance."""
        return 1

    @classmethod
    def decoded_frames(cls, config: ConfigDict, frames: int) -> int:
        """Of how many frames a pass in training gives outputs: the last ones of each clip of `frames`."""
        return frames

    @classmethod
    def least_frames(cls, config: ConfigDict) -> int:
        """The fewest frames of a clip that it can be trained on."""
        return 1

    @classmethod
    def reads_reference(cls, config: ConfigDict) -> bool:
        """Whether in training a clip's first frame is one far from the others: `data.reference_distance`."""
        return False

    @classmethod
    def check_longest(cls, config: ConfigDict, longest: int, place: str) -> None:
        """Raises UserError where at inference it looks back farther than the longest video of `place` reaches."""

    def __init__(
        self,
        maps: tuple[FeatureMap, ...],
        num_classes: int,
        config: ConfigDict,
        remat: str,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        """`maps` describes what the encoder gives."""
        raise NotImplementedError

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """The outputs; each has the axis N, but for those of the decoder itself, whose names lack it."""
        raise NotImplementedError

    def memory(self, maps: Maps) -> PyTree:
        """What it remembers of N views before their first frame: arrays whose first axis is N.

        `maps` are those of a first frame; their shapes and types count, not their values.
        """
        return ()

    def look(
        self, maps: Maps, memory: PyTree, mask_NHW: UInt8[Array, "N H W"] | None = None
    ) -> tuple[dict[str, Array], PyTree]:
        """The outputs for the next frame of N views, and what is remembered after it. Only inference calls it.

        Args:
          mask_NHW: train ids that an earlier stage made of the same views, 255 where it made none; only given where
            `reads_masks`.
        """
        return self(maps), memory
