"""Class scores of whole frames on disk, in half precision, cropped to the best classes of a pixel where asked.

    DIR/scores.json           whose scores these are, and the frames of each video with their sizes; written last
    DIR/<video>/<frame>.npz   values (H, W, k) float16; where k < K also classes (H, W, k) uint8, the best first, and
                              rest (H, W) float16, the mean score of the classes that are not kept

The rest keeps a pixel's sum, so that cropped scores can be added to whole ones. Shapes: H and W pixels, K classes, k
kept, m that any of several models has kept.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float16, Float32, UInt8

from vspw_jax.buckets import mirrors
from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.files.whole_files import whole_file

METADATA = "scores.json"
FORMAT = 1
OVERHEAD = 1024
"""Most bytes of a file beside its arrays."""


@dataclasses.dataclass(frozen=True)
class Compact:
    """Scores of a frame as they are stored; see the file's top."""

    values: Float16[np.ndarray, "H W k"]
    classes: UInt8[np.ndarray, "H W k"] | None = None
    rest: Float16[np.ndarray, "H W"] | None = None

    def expand(self, num_classes: int) -> Float32[np.ndarray, "H W K"]:
        """Scores of all classes."""
        if self.classes is None or self.rest is None:
            return self.values.astype(np.float32)
        score_HWK = np.repeat(self.rest.astype(np.float32)[..., None], num_classes, axis=-1)
        np.put_along_axis(score_HWK, self.classes.astype(np.intp), self.values.astype(np.float32), axis=-1)
        return score_HWK

    def of(self, classes_HWm: UInt8[np.ndarray, "H W m"]) -> Float32[np.ndarray, "H W m"]:
        """Scores of some classes of each pixel; for scores that are cropped."""
        assert self.classes is not None and self.rest is not None
        score_HWm = np.repeat(self.rest.astype(np.float32)[..., None], classes_HWm.shape[-1], axis=-1)
        for kept in range(self.classes.shape[-1]):
            here = classes_HWm == self.classes[..., kept, None]
            np.copyto(score_HWm, self.values[..., kept, None].astype(np.float32), where=here)
        return score_HWm


def candidates(
    compacts: Sequence[Compact], num_classes: int
) -> tuple[UInt8[np.ndarray, "H W m"] | None, list[Float32[np.ndarray, "H W m"]]]:
    """The classes that can win a pixel, or None for all, and each model's scores of them.

    Where all scores are cropped, these are the classes that any model has kept. No other class can have a higher
    weighted sum: each model scores it no higher than those that it keeps. A pixel's classes are in rising order; some
    occur twice.
    """
    kept = [compact.classes for compact in compacts if compact.classes is not None]
    if len(kept) < len(compacts):
        return None, [compact.expand(num_classes) for compact in compacts]
    classes = np.sort(np.concatenate(kept, axis=-1), axis=-1)
    return classes, [compact.of(classes) for compact in compacts]


def compress(score_HWK: Float[Array, "H W K"], top: int) -> dict[str, Array]:
    """The fields of a `Compact` of scores, as device arrays."""
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


def frame_bytes(height: int, width: int, num_classes: int, top: int) -> int:
    """The most bytes that a frame's file can have."""
    per_pixel = 2 * num_classes if top == num_classes else 3 * top + 2
    return height * width * per_pixel + OVERHEAD


def check_room(folder: pathlib.Path | str, needed: int, hint: str) -> str:
    """A sentence on how large scores will be.

    UserError where the disk has no room for them. The scores that `folder` holds already count as room.
    """
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
      folder: where to; an older `scores.json` in it is deleted at once.
      identity: whose scores, `Predictor.identity()` and what was read, JSON values.
      num_classes, top: K and k.

    Attributes:
      videos: what was entered: by video, by frame, its [height, width].
    """

    def __init__(self, folder: pathlib.Path | str, identity: dict[str, Any], num_classes: int, top: int) -> None:
        self.folder = pathlib.Path(folder)
        self.videos: dict[str, dict[str, list[int]]] = {}
        self._head = {"format": FORMAT, "classes": num_classes, "top_classes": top, "identity": identity}
        self.folder.mkdir(parents=True, exist_ok=True)
        mirrors.delete(self.folder / METADATA)

    def path(self, video: str, frame: str) -> pathlib.Path:
        """The file of a frame's scores."""
        return self.folder / video / f"{frame}.npz"

    def enter(self, video: str, frame: str, size: Sequence[int]) -> None:
        """Notes that a frame of `size` (height, width) belongs here; frames keep the order in which they come."""
        self.videos.setdefault(video, {})[frame] = [int(side) for side in size]

    def save(self, video: str, frame: str, compact: Compact) -> None:
        """Writes the scores of a frame; any thread may call it."""
        path = self.path(video, frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            parts: dict[str, Any] = {
                name: np.ascontiguousarray(part) for name, part in vars(compact).items() if part is not None
            }
            np.savez(partial, **parts)  # Rows follow one another, as `Reader.strips` reads them.

    def close(self) -> None:
        """Writes scores.json: all frames that were entered are there."""
        with whole_file(self.folder / METADATA) as partial:
            partial.write_text(json.dumps({**self._head, "videos": self.videos}) + "\n")


class Reader:
    """Scores that a `Writer` has left.

    Attributes:
      num_classes, top, identity, videos: as the `Writer` had them.

    Raises:
      UserError: there are none, or they are of another format.
    """

    def __init__(self, folder: pathlib.Path | str) -> None:
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
            self.num_classes: int = metadata["classes"]
            self.top: int = metadata["top_classes"]
            self.identity: dict[str, Any] = metadata["identity"]
            self.videos: dict[str, dict[str, list[int]]] = metadata["videos"]
            own = self.identity.get("class_list")
            self.classes = ClassList.from_json(own) if own else vspw.classes()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged or of another version ({error}); expected format {FORMAT}. "
                "Delete the folder and save the scores again."
            ) from error

    def frame(self, video: str, frame: str) -> Compact:
        """The scores of a frame; UserError where its file is missing, damaged or of another size, or holds NaN."""
        (whole,) = self.strips(video, frame, self.videos[video][frame][0])
        return whole

    def strips(self, video: str, frame: str, rows: int) -> Iterator[Compact]:
        """The scores of a frame, so many rows at a time; the last strip may have fewer. Raises as `frame` does."""
        path = self.folder / video / f"{frame}.npz"
        height, width = self.videos[video][frame]
        expected = (height, width, self.top)
        try:
            with contextlib.ExitStack() as opened:
                archive = opened.enter_context(zipfile.ZipFile(path))
                parts = {
                    name.removesuffix(".npy"): _Rows(opened.enter_context(archive.open(name)))
                    for name in archive.namelist()
                }
                found = parts["values"].shape
                if found != expected:
                    raise UserError(
                        f"{path} holds scores of shape {found}, {METADATA} says {expected}. Save the scores again."
                    )
                for start in range(0, height, rows):
                    strip = Compact(**{name: part.read(min(rows, height - start)) for name, part in parts.items()})
                    if not all(_are_finite(part) for part in (strip.values, strip.rest) if part is not None):
                        raise UserError(
                            f"{path} holds NaN or infinity, which no class can win by. Save the scores again."
                        )
                    yield strip
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read: {error}\nSave the scores again.") from error


def _are_finite(score: Float16[np.ndarray, "..."]) -> bool:
    """As `np.isfinite`, in less time: NaN and infinity are what has 1 in all bits of the exponent."""
    return bool(((score.view(np.uint16) & 0x7C00) != 0x7C00).all())


class _Rows:
    """An array in NumPy's file format, read a few rows at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"NumPy's file format {version}, expected (1, 0)")
        self.shape, columns_first, self._dtype = np.lib.format.read_array_header_1_0(file)
        if columns_first:
            raise ValueError("an array whose columns come first")
        self._file = file

    def read(self, rows: int) -> np.ndarray:
        """The next rows."""
        row = self.shape[1:]
        content = self._file.read(rows * math.prod(row) * self._dtype.itemsize)
        return np.frombuffer(content, self._dtype).reshape(rows, *row)
