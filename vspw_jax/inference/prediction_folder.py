"""A folder of predictions of one video: what it says of itself, and the masks that an earlier run has left in it.

prediction.json                  from which model and input; the number of frames once all is done
masks/<frame>.png                train ids 0..123, VSPW's colours as palette
overlays/<frame>.jpg             the frame with its classes' colours over it, and a legend
overlay.mp4, side_by_side.mp4    the same as videos
palette.csv                      the classes' names, and their colours in masks and in overlays
scores/                          see scores.py
memory.npz                       see memory_file.py; of a network that remembers
"""

import csv
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError, differing
from vspw_jax.files.whole_files import whole_file

CLAIM = "prediction.json"


def _save_palette(path: pathlib.Path) -> None:
    columns = ("id", "name", "r", "g", "b", "overlay_r", "overlay_g", "overlay_b")
    of_masks, of_overlays = vspw.palette().tolist(), vspw.picture_colours().tolist()
    with whole_file(path) as partial, partial.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for number, name in enumerate(vspw.names()):
            rows.writerow((number, name, *of_masks[number], *of_overlays[number]))


class PredictionFolder:
    """Claims a folder for this model and this input, or checks that they have claimed it before.

    Args:
      path: the folder.
      identity: of model and input, JSON values.

    Attributes:
      frames: how many it holds if an earlier run has finished it, else None.

    Raises:
      UserError: it holds something else.
    """

    def __init__(self, path: pathlib.Path, identity: dict[str, Any]) -> None:
        self.path, self._identity = path, json.loads(json.dumps(identity))
        advice = f"Choose another with --output=DIR, or delete {path} to start anew."
        if (path / CLAIM).exists():
            self.frames: int | None = self._check(advice)
        elif any((path / "masks").glob("*")):
            raise UserError(f"{path / 'masks'} holds files, but no {path / CLAIM} says of what. {advice}")
        else:
            self.frames = None
            for folder in ("masks", "overlays"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            _save_palette(path / "palette.csv")
            self.finish(None)

    def _check(self, advice: str) -> int | None:
        try:
            found = json.loads((self.path / CLAIM).read_text())
            frames = found.pop("frames")
            if not isinstance(frames, int | None):
                raise ValueError(f"frames is {frames!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path / CLAIM} is damaged ({error}). {advice}") from error
        if lines := differing(found, self._identity):
            raise UserError(f"{self.path} holds predictions of another model or input:\n{lines}\n{advice}")
        return frames

    def is_whole(self, films: Iterable[str]) -> bool:
        """Whether an earlier run has finished it with these videos, and all masks are still there."""
        masks = len(list((self.path / "masks").glob("[!.]*.png"))) if self.frames is not None else 0
        return self.frames is not None and masks >= self.frames and all((self.path / film).exists() for film in films)

    def mask_path(self, frame: str) -> pathlib.Path:
        """The file of a frame's train ids."""
        return self.path / "masks" / f"{frame}.png"

    def overlay_path(self, frame: str) -> pathlib.Path:
        """The file of a frame's picture."""
        return self.path / "overlays" / f"{frame}.jpg"

    def mask(self, frame: str, size: tuple[int, ...]) -> UInt8[np.ndarray, "H W"] | None:
        """The train ids that an earlier run has left; None where there are none, or they have another size."""
        try:
            with Image.open(self.mask_path(frame)) as mask:
                label_HW = np.asarray(mask)
        except (OSError, SyntaxError, ValueError):  # The last two are Pillow's.
            return None
        return label_HW if label_HW.shape == size else None

    def finish(self, frames: int | None) -> None:
        """Notes that all `frames` of the video are there; None: not yet."""
        with whole_file(self.path / CLAIM) as path:
            path.write_text(json.dumps({**self._identity, "frames": frames}, indent=2) + "\n")
