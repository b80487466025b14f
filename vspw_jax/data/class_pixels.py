"""How many pixels of each source value every frame's mask holds, and what can be told from that without decoding masks.

N records of a split; the 256 columns are the values that a mask's pixel can take. A frame without mask has no pixels.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int, UInt8

from vspw_jax.classes import label_maps
from vspw_jax.classes.class_list import VOID
from vspw_jax.console.errors import UserError

EXACT = 1 << 24
"""Up to here float32 holds every integer."""


def file_name(split: str) -> str:
    """The file beside the shards that holds a split's pixels."""
    return f"class_pixels-{split}.npz"


def save(path: pathlib.Path, pixels_N256: scipy.sparse.csr_array) -> None:
    """Writes a scipy.sparse CSR array of uint32."""
    scipy.sparse.save_npz(path, pixels_N256)


def load(folder: pathlib.Path, split: str, num_records: int) -> scipy.sparse.csr_array:
    """The pixels of a split, CSR (N, 256) uint32.

    Raises:
      UserError: the file is missing or damaged, or is not of this split.
    """
    path = folder / file_name(split)
    try:
        with path.open("rb") as file:
            pixels_N256 = scipy.sparse.load_npz(file).tocsr()
    except Exception as error:
        found = "is missing" if not path.exists() else f"cannot be read ({str(error).splitlines()[0]})"
        raise UserError(f"{path} {found}. Delete {folder} and convert again.") from error
    if pixels_N256.shape != (num_records, 256):
        raise UserError(
            f"{path} is of {pixels_N256.shape[0]} records, split {split} has {num_records}. "
            f"Delete {folder} and convert again."
        )
    return pixels_N256


def from_counts(counts: Sequence[Mapping[int, int] | Mapping[str, int]]) -> scipy.sparse.csr_array:
    """CSR (N, 256) uint32 from a dict {value: pixels} for each record; values may be digits, as from JSON."""
    rows = [row for row, count in enumerate(counts) for _ in count]
    columns = [int(value) for count in counts for value in count]
    pixels = [pixels for count in counts for pixels in count.values()]
    return scipy.sparse.csr_array((np.array(pixels, np.uint32), (rows, columns)), shape=(len(counts), 256))


def count(values_HW: UInt8[np.ndarray, "H W"]) -> dict[int, int]:
    """{value: pixels} of a mask, in the order of values."""
    # OpenCV counts bytes some ten times faster than np.bincount, but in float32: each part is small enough to be exact.
    parts = [values_HW.reshape(1, -1)[:, start : start + EXACT] for start in range(0, values_HW.size, EXACT)]
    pixels = np.sum([cv2.calcHist([part], [0], None, [256], [0, 256]).ravel().astype(np.int64) for part in parts], 0)
    return {int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}


def check_share(min_mapped: float) -> None:
    """Raises UserError if the least share to be mapped is not within 0 to 1: 80 for 80 %, say."""
    if not 0 <= min_mapped <= 1:
        raise UserError(f"The least share of pixels to be mapped is {min_mapped:g}: expected 0 to 1, 0.8 for 80 %.")


def mapped_share(
    pixels_N256: scipy.sparse.csr_array,
    lookup: UInt8[np.ndarray, "256"],
    labelled: Bool[np.ndarray, "256"],
    denominator: str = "all",
) -> Float[np.ndarray, " N"]:
    """Share of each frame's pixels that map to a class; 0 for a frame without such pixels.

    Args:
      lookup: train ids by source value, as `LabelMap.lookup`.
      labelled: as `LabelMap.labelled`.
      denominator: "all" pixels, or those that are "labelled" in the source.

    Source: arXiv 2306.03508, section 2.2 ("at least 80 % of pixels"), which does not say of which pixels.
    """
    if denominator not in label_maps.DENOMINATORS:
        raise UserError(f"The denominator is {denominator!r}: expected one of {', '.join(label_maps.DENOMINATORS)}.")
    counted = labelled if denominator == "labelled" else np.ones(256, bool)
    pixels_N256 = pixels_N256.astype(np.float64)
    mapped, total = pixels_N256 @ (lookup != VOID), pixels_N256 @ counted
    return np.divide(mapped, total, out=np.zeros_like(total), where=total > 0)


def most_classes(pixels_N256: scipy.sparse.csr_array, lookup: UInt8[np.ndarray, "256"]) -> int:
    """The most classes that one frame holds."""
    to_class = np.zeros((256, VOID), np.uint32)
    values = np.flatnonzero(lookup != VOID)
    to_class[values, lookup[values]] = 1
    present = pixels_N256.astype(np.int64) @ scipy.sparse.csr_array(to_class)
    present.eliminate_zeros()
    return int(np.diff(present.indptr).max(initial=0))


def highest_class(pixels_N256: scipy.sparse.csr_array, lookup: UInt8[np.ndarray, "256"]) -> int:
    """The highest train id that the frames hold, -1 if they hold none."""
    found = lookup[np.flatnonzero(pixels_N256.sum(axis=0))]
    return max(map(int, found[found != VOID]), default=-1)


def of_classes(pixels_N256: scipy.sparse.csr_array, lookup: UInt8[np.ndarray, "256"]) -> Int[np.ndarray, "255"]:
    """How many pixels of each train id the frames hold together."""
    pixels = np.asarray(pixels_N256.sum(axis=0, dtype=np.int64)).ravel()
    return np.bincount(lookup, pixels, minlength=VOID + 1)[:VOID].astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Kept:
    """How many frames have at least a share of their pixels mapped.

    Attributes:
      of_all, of_labelled: number of such frames, by share of all pixels and by share of the labelled ones.
      total: number of all frames.
      min_mapped: the share.
    """

    of_all: int
    of_labelled: int
    total: int
    min_mapped: float

    def __str__(self) -> str:
        return (
            f"{self.of_all} of {self.total} images have at least {100 * self.min_mapped:g} % of all their pixels "
            f"mapped to classes, {self.of_labelled} at least that share of their labelled pixels"
        )


def count_kept(
    pixels_N256: scipy.sparse.csr_array,
    lookup: UInt8[np.ndarray, "256"],
    labelled: Bool[np.ndarray, "256"],
    min_mapped: float,
) -> Kept:
    """`Kept` of a split; see `mapped_share`. Raises UserError if `min_mapped` is not within 0 to 1."""
    check_share(min_mapped)
    of_all, of_labelled = (
        int((mapped_share(pixels_N256, lookup, labelled, denominator) >= min_mapped).sum())
        for denominator in label_maps.DENOMINATORS
    )
    return Kept(of_all, of_labelled, pixels_N256.shape[0], min_mapped)
