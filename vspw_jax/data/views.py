"""Which views of a clip a training batch holds: `config.data.views`.

A view is an image and a label of every frame: `image_BTHWC`, `label_BTHW`. Further views of the same clips have a word
before these names, as `strong_image_BTHWC`. Where a stream has clips without labels, `unlabelled_BTHW` tells their
pixels from padding: both are void in a label. A new scheme is a class in a file of its own, as `Scheme` describes it,
and a line in `SCHEMES`.
Shapes: B clips, T frames, H and W pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Protocol

import jax
import numpy as np
from jaxtyping import Float32, Int32
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.data import moco, transforms
from vspw_jax.data.weak_and_strong import WeakAndStrong

ARRAYS = ("image_BTHWC", "label_BTHW")
"""Of a view."""
BATCH = "is_clip_B"
"""What a batch holds beside its views: whether a clip's frames are of one video."""
UNLABELLED = "unlabelled_BTHW"
"""And which pixels show a frame of a clip without labels, where there are such clips; False beyond the frame."""


class View(Protocol):
    """One draw of what the frames of a clip are shown as."""

    def shrink(self, height: int) -> int:
        """By which of 1, 2, 4 and 8 frames of that height may be divided as they are decoded; it shows no more."""

    def shown_size(self, shape: transforms.Size) -> transforms.Size:
        """(height, width) of what it shows of a frame of that shape; what is left of the crop is padding."""

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
      section: of `config.data.augment` that it reads beside the rest, "" for none; `configs/parts/data.py` has it by
        the same name.
      divide_frames: whether the views divide a clip's frames among themselves, each showing a run of them; else each
        shows all.
    """

    prefixes: ClassVar[tuple[str, ...]]
    section: ClassVar[str]
    divide_frames: ClassVar[bool]

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
    section: ClassVar[str] = ""
    divide_frames: ClassVar[bool] = False

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[View]:
        """See `Scheme`."""
        return (transforms.random_view(labels, config, crop, rng),)


SCHEMES: Mapping[str, type[Scheme]] = {
    "one": One,
    "two": moco.Two,
    "two_frames": moco.TwoFrames,
    "weak_and_strong": WeakAndStrong,
}
"""By their name in a config."""


def scheme(config: ConfigDict) -> type[Scheme]:
    """The scheme of `config.data`; UserError where there is none of that name."""
    return choose(SCHEMES, config.views, "data.views")


def check(config: ConfigDict) -> None:
    """Raises UserError where `config.data` names no scheme, lacks what it reads, or has frames that it cannot share."""
    found = scheme(config)
    section, count = found.section, len(found.prefixes)
    if section and section not in config.augment:
        raise UserError(
            f"data.views is {config.views!r}, but the recipe has no section data.augment.{section}. Add "
            f"config.data.augment.{section} = data.{section}() to it, from configs/parts/data.py."
        )
    if found.divide_frames and config.frames % count:
        raise UserError(
            f"data.frames is {config.frames}, but the {count} views of data.views {config.views!r} divide a clip's "
            f"frames among themselves: expected a multiple of {count}. Set --config.data.frames={count}."
        )


def frames_shown(config: ConfigDict) -> int:
    """How many frames of a clip each view shows; where a clip is of single images, it holds so many."""
    found = scheme(config)
    return config.frames // len(found.prefixes) if found.divide_frames else config.frames


def shapes(config: ConfigDict, crop: transforms.Size, *clips: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of a batch; `clips` are its leading axes."""
    shape = (*clips, frames_shown(config), *crop)
    batch = {BATCH: jax.ShapeDtypeStruct(clips, np.bool_)}
    image, label = jax.ShapeDtypeStruct((*shape, 3), np.float32), jax.ShapeDtypeStruct(shape, np.int32)
    for prefix in scheme(config).prefixes:
        batch |= {f"{prefix}{name}": like for name, like in zip(ARRAYS, (image, label), strict=True)}
    if config.unlabelled_share:
        batch[UNLABELLED] = jax.ShapeDtypeStruct(shape, np.bool_)
    return batch


def labels(names: Iterable[str]) -> list[str]:
    """Those of the arrays of a batch that are labels."""
    return [name for name in names if name.endswith(ARRAYS[1])]
