"""A folder of predictions of one video: what it says of itself, and the masks that an earlier run has left in it.

prediction.json                  from which model and input, and how it is drawn; the number of frames once all is done
masks/<frame>.png                train ids from 0 on, the classes' colours as palette
overlays/<frame>.jpg             the frame with its classes' colours over it, and a legend
overlay.mp4, side_by_side.mp4    the same as videos
palette.csv                      the classes' names, and their colours in masks and in overlays
scores/                          see scores.py
memory.npz                       see memory_file.py; of a network that remembers
"""

import csv
import json
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vspw_jax.classes.class_set import VSPW, ClassSet
from vspw_jax.console.errors import UserError, differing
from vspw_jax.files import mask_png
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_folder

CLAIM = "prediction.json"
FILMS = ("overlay.mp4", "side_by_side.mp4")
WRITTEN = ("masks", "overlays", "scores", *FILMS, "palette.csv", "memory.npz", CLAIM)
"""All that is in such a folder."""


def wrote(path: pathlib.Path) -> bool:
    """Whether a file or folder is the work of predictions, which a folder or a pattern in --input does not mean."""
    for place in (path, path.parent):
        if place.name.removeprefix("partial-") in WRITTEN and (place.parent / CLAIM).exists():
            return True
    inside = [child for child in path.iterdir() if not child.name.startswith(".")] if path.is_dir() else []
    return bool(inside) and all(map(wrote, inside))


def _save_palette(path: pathlib.Path, classes: ClassSet) -> None:
    columns = ("id", "name", "r", "g", "b", "overlay_r", "overlay_g", "overlay_b")
    of_masks, of_overlays = classes.palette.tolist(), classes.colours.tolist()
    with whole_file(path) as partial, partial.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for number, name in enumerate(classes.names):
            rows.writerow((number, name, *of_masks[number], *of_overlays[number]))


class PredictionFolder:
    """Claims a folder for this model and this input, or checks that they have claimed it before.

    Args:
      path: the folder.
      identity: of model and input, JSON values.
      drawing: how pictures are drawn, JSON values; pictures that were drawn otherwise are deleted, masks are kept.
      classes: of the masks.

    Attributes:
      frames: how many it holds if an earlier run has finished it, else None.
      complaints: sentences of that run about what could not be read.

    Raises:
      UserError: it holds something else.
    """

    def __init__(
        self, path: pathlib.Path, identity: dict[str, Any], drawing: dict[str, Any], classes: ClassSet = VSPW
    ) -> None:
        self.path, self._identity, self._drawing = path, json.loads(json.dumps(identity)), drawing
        self._classes = classes
        self.complaints: list[str] = []
        advice = f"Choose another with --output=DIR, or delete {path} to start anew."
        if (path / CLAIM).exists():
            self.frames: int | None = self._check(advice)
        elif any((path / "masks").glob("*")):
            raise UserError(f"{path / 'masks'} holds files, but no {path / CLAIM} says of what. {advice}")
        else:
            self._begin()

    def _begin(self) -> None:
        self.frames = None
        for folder in ("masks", "overlays"):
            check_folder(self.path / folder, "--output=DIR")
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        _save_palette(self.path / "palette.csv", self._classes)
        self.finish(None)

    def _delete_pictures(self) -> None:
        shutil.rmtree(self.path / "overlays", ignore_errors=True)
        for film in FILMS:
            (self.path / film).unlink(missing_ok=True)

    def _check(self, advice: str) -> int | None:
        try:
            found = json.loads((self.path / CLAIM).read_text())
            frames, drawing = found.pop("frames"), found.pop("drawing", None)
            self.complaints = found.pop("complaints", [])
            if not isinstance(frames, int | None):
                raise ValueError(f"frames is {frames!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path / CLAIM} is damaged ({error}). {advice}") from error
        if lines := differing(found, self._identity):
            raise UserError(f"{self.path} holds predictions of another model or input:\n{lines}\n{advice}")
        if drawing != self._drawing:
            self._delete_pictures()
            self._begin()
            return None
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
            label_HW = mask_png.decode(self.mask_path(frame).read_bytes())
        except (UserError, OSError):
            return None
        return label_HW if label_HW.shape == size else None

    def finish(self, frames: int | None, complaints: Sequence[str] = ()) -> None:
        """Notes that all `frames` of the video are there, and what could not be read; None: not yet."""
        notes = {"drawing": self._drawing, "frames": frames, "complaints": list(complaints)}
        with whole_file(self.path / CLAIM) as path:
            path.write_text(json.dumps({**self._identity, **notes}, indent=2) + "\n")
