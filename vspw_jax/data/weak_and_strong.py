"""Two views of a clip for a teacher and its student: the same geometry, and stronger colours in the second.

The strong view is UniMatch's (LiheYoung/UniMatch dataset/semi.py and transform.py), on top of what the weak one has;
see `colour_jitter.py`. Colours are drawn once a clip, as the weak view's are.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from vspw_jax.data import colour_jitter, transforms


@dataclasses.dataclass(frozen=True)
class StrongView(transforms.View):
    """A view whose colours are strong."""

    strong: colour_jitter.Colours

    def paint(self, shown: transforms.Image, out: np.ndarray) -> None:
        """See `View.paint`."""
        super().paint(np.asarray(self.strong.of(Image.fromarray(shown))), out)


class WeakAndStrong:
    """The weak view, which the labels are learned on, and the strong one; see `views.Scheme`."""

    prefixes: ClassVar[tuple[str, ...]] = ("", "strong_")
    divide_frames: ClassVar[bool] = False
    section: ClassVar[str] = "strong"

    @staticmethod
    def draw(
        labels: Sequence[transforms.Label], config: ConfigDict, crop: transforms.Size, rng: np.random.Generator
    ) -> Sequence[transforms.View]:
        """See `views.Scheme`."""
        weak = transforms.random_view(labels, config, crop, rng)
        return weak, StrongView(**vars(weak), strong=colour_jitter.random_colours(config.strong, rng))
