"""Which views of a clip a training batch holds: `config.data.views`.

A view is an image and a label of every frame: `image_BTHWC`, `label_BTHW`. Further views of the same clips have a word
before these names, as `strong_image_BTHWC`. A new scheme is a class in a file of its own, as `Scheme` describes it, and
a line in `SCHEMES`.
Shapes: B clips, T frames, H and W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import jax
import numpy as np
from jaxtyping import Float32, Int32
from ml_collections import ConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.data import moco, transforms

ARRAYS = ("image_BTHWC", "label_BTHW")
"""Of a view."""
BATCH = "is_clip_B"
"""What a batch holds beside its views: whether a clip's frames are of one video."""


class View(Protocol):
    """One draw of what the frames of a clip are shown as."""

    def shrink(self, height: int) -> int:
        """By which of 1, 2, 4 and 8 frames of that height may be divided as they are decoded; it shows no more."""

    def show(
        self,
        image: transforms.Image,
        label: transforms.Label,
        out_image: Float32[np.ndarray, "h w 3"],
        out_label: Int32[np.ndarray, "h w"],
    ) -> None:
        """Writes what it shows of a frame into arrays of the crop's size: normalised, 0 and void beyond the frame.

        The image may have been shrunk, see `shrink`; the label never is.
        """


class Scheme(Protocol):
    """Draws the views of a clip.

    Attributes:
      prefixes: of the names of its views in a batch, "" first.
    """

    prefixes: ClassVar[tuple[str, ...]]

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[View]:
        """One view for each prefix.

        Args:
          labels: of the frames, all of one size.
          config: `config.data.augment`.
          crop: (height, width) of the views.
          rng: the only source of randomness.
        """


class One:
    """One view, as mmsegmentation augments."""

    prefixes: ClassVar[tuple[str, ...]] = ("",)

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[View]:
        """See `Scheme`."""
        return (transforms.random_view(labels, config, crop, rng),)


SCHEMES: Mapping[str, type[Scheme]] = {"one": One, "two": moco.Two}
"""By their name in a config."""


def scheme(config: ConfigDict) -> type[Scheme]:
    """The scheme of `config.data`; UserError where there is none of that name."""
    return choose(SCHEMES, config.views, "data.views")


def shapes(config: ConfigDict, crop: transforms.Size, *clips: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of a batch; `clips` are its leading axes."""
    shape = (*clips, config.frames, *crop)
    batch = {BATCH: jax.ShapeDtypeStruct(clips, np.bool_)}
    image, label = jax.ShapeDtypeStruct((*shape, 3), np.float32), jax.ShapeDtypeStruct(shape, np.int32)
    for prefix in scheme(config).prefixes:
        batch |= {f"{prefix}{name}": like for name, like in zip(ARRAYS, (image, label), strict=True)}
    return batch
