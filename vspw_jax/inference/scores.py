"""Class scores of whole frames on disk, in half precision, cropped to the best classes of a pixel where asked.

    DIR/scores.json           whose scores these are, and the frames of each video with their sizes; written last
    DIR/<video>/<frame>.npz   values (H, W, k) float16; where k < K also classes (H, W, k) uint8, the best first, and
                              rest (H, W) float16, the mean score of the classes that are not kept

The rest keeps a pixel's sum, so that scores cropped and whole can be added. Shapes: H and W pixels, K classes, k kept.
"""

import dataclasses
import json
import pathlib
import shutil
import zipfile

import jax.numpy as jnp
import numpy as np
from jax import lax

from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

METADATA = "scores.json"
FORMAT = 1
OVERHEAD = 1024
"""Bytes of a file beside its arrays, at most."""


@dataclasses.dataclass(frozen=True)
class Compact:
    """Scores of a frame as they are stored; see the file's top."""

    values: np.ndarray
    classes: np.ndarray | None = None
    rest: np.ndarray | None = None

    def expand(self, num_classes):
        """Scores (H, W, K) float32."""
        if self.classes is None:
            return self.values.astype(np.float32)
        score_HWK = np.repeat(self.rest.astype(np.float32)[..., None], num_classes, axis=-1)
        np.put_along_axis(score_HWK, self.classes.astype(np.intp), self.values.astype(np.float32), axis=-1)
        return score_HWK

    def of(self, classes_HWm):
        """Scores (H, W, m) float32 of some classes of each pixel; for scores that are cropped."""
        score_HWm = np.repeat(self.rest.astype(np.float32)[..., None], classes_HWm.shape[-1], axis=-1)
        for kept in range(self.classes.shape[-1]):
            here = classes_HWm == self.classes[..., kept, None]
            np.copyto(score_HWm, self.values[..., kept, None].astype(np.float32), where=here)
        return score_HWm


def candidates(compacts, num_classes):
    """(classes (H, W, m) uint8 or None for all, scores of them (H, W, m) float32 of each model).

    Of cropped scores the classes that any model has kept are enough: no other can have a higher weighted sum, as each
    model gives it no more than to those that it keeps. A pixel's are in rising order; some occur twice.
    """
    if any(compact.classes is None for compact in compacts):
        return None, [compact.expand(num_classes) for compact in compacts]
    classes = np.sort(np.concatenate([compact.classes for compact in compacts], axis=-1), axis=-1)
    return classes, [compact.of(classes) for compact in compacts]


def compress(score_HWK, top):
    """The fields of `Compact` of scores, as device arrays."""
    num_classes = score_HWK.shape[-1]
    if top == num_classes:
        return {"values": score_HWK.astype(jnp.float16)}
    values, ids = lax.top_k(score_HWK, top)
    rest = (score_HWK.sum(axis=-1) - values.sum(axis=-1)) / (num_classes - top)
    return {
        "values": values.astype(jnp.float16),
        "classes": ids.astype(jnp.uint8),
        "rest": jnp.maximum(rest, 0).astype(jnp.float16),
    }


def frame_bytes(height, width, num_classes, top):
    """The largest that a frame's file can be."""
    per_pixel = 2 * num_classes if top == num_classes else 3 * top + 2
    return height * width * per_pixel + OVERHEAD


def check_room(folder, needed, hint):
    """Says how large scores will be; UserError where the disk has no room beside what `folder` holds already."""
    folder = pathlib.Path(folder)
    held = sum(path.stat().st_size for path in folder.rglob("*.npz"))
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
    stated = f"Scores in {folder} take up to {needed / 2**30:.2f} GiB"
    if needed > free + held:
        raise UserError(
            f"No room: {stated[0].lower()}{stated[1:]}, {(free + held) / 2**30:.2f} GiB are free.\n"
            f"Free some space, {hint}, or keep fewer classes of a pixel with --config.evaluate.top_classes=4 "
            "(5.5 MiB a frame of 853x480)."
        )
    return stated


class Writer:
    """Writes scores of frames into a folder, which is whole once `close` has been called.

    Args:
      folder: where to; an older `scores.json` in it goes at once.
      identity: whose scores, `Predictor.identity()` and what was read, JSON values.
      num_classes, top: K and k.

    Attributes:
      videos: what was entered: dict of dicts, (height, width) by frame by video.
    """

    def __init__(self, folder, identity, num_classes, top):
        self.folder, self.videos = pathlib.Path(folder), {}
        self._head = {"format": FORMAT, "classes": num_classes, "top_classes": top, "identity": identity}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / METADATA).unlink(missing_ok=True)

    def path(self, video, frame):
        """Of a frame's scores."""
        return self.folder / video / f"{frame}.npz"

    def enter(self, video, frame, size):
        """Notes that a frame of `size` (height, width) belongs here; frames keep the order in which they come."""
        self.videos.setdefault(video, {})[frame] = [int(side) for side in size]

    def save(self, video, frame, compact):
        """Writes the scores of a frame; from any thread."""
        path = self.path(video, frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            np.savez(partial, **{name: part for name, part in vars(compact).items() if part is not None})

    def close(self):
        """Writes scores.json: all frames that were entered are there."""
        with whole_file(self.folder / METADATA) as partial:
            partial.write_text(json.dumps({**self._head, "videos": self.videos}) + "\n")


class Reader:
    """Scores that a `Writer` has left.

    Attributes:
      num_classes, top, identity: as written.
      videos: dict of dicts, (height, width) by frame by video.

    Raises:
      UserError: there are none, or they are of another format.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        path = self.folder / METADATA
        if not path.is_file():
            raise UserError(
                f"{self.folder} holds no whole scores: expected {METADATA}, which is written last. Make them with "
                "--mode=evaluate --config.evaluate.save_scores=True, then name <workdir>/scores/<split>."
            )
        try:
            metadata = json.loads(path.read_text())
            if metadata["format"] != FORMAT:
                raise ValueError(f"format {metadata['format']}")
            self.num_classes, self.top = metadata["classes"], metadata["top_classes"]
            self.identity, self.videos = metadata["identity"], metadata["videos"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged or of another version ({error}); expected format {FORMAT}. "
                "Delete the folder and save the scores again."
            ) from error

    def frame(self, video, frame):
        """`Compact` of a frame; UserError where its file is missing, damaged or of another size."""
        path = self.folder / video / f"{frame}.npz"
        expected = (*self.videos[video][frame], self.top)
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                compact = Compact(**arrays)
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read: {error}\nSave the scores again.") from error
        if compact.values.shape != expected:
            raise UserError(
                f"{path} holds scores of shape {compact.values.shape}, {METADATA} says {expected}. "
                "Save the scores again."
            )
        return compact
