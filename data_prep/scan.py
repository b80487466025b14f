"""Reads every record of a split once, in several processes, and keeps what verification asks for.

A frame leaves a few hundred bytes behind (`FrameFacts`), which the main process folds, in order, into sums: memory does
not grow with the pictures. Shapes: V = 256 source values of a mask.
"""

import collections
import dataclasses
import functools
import hashlib
import io
import multiprocessing

import numpy as np
from PIL import Image

from data_prep.label_shift import Sightings
from vspw_jax.data import records
from vspw_jax.errors import UserError
from vspw_jax.progress import progress

CHUNK = 32
"""Records that a worker takes at a time."""

ROWS = 120
"""About how many rows and columns of a mask are enough to say how high a class is."""


@dataclasses.dataclass
class FrameFacts:
    """What is kept of a record.

    Attributes:
      problem: what is wrong with it, or None.
      values, pixels: source values in its mask, and how many pixels each has.
      sampled, area, height: values on a coarse grid, their shares of it and their vertical centres (0 top, 1 bottom).
    """

    video: str = ""
    frame: str = ""
    jpeg_sha256: bytes = b""
    png_sha256: bytes = b""
    has_mask: bool = False
    problem: str | None = None
    values: np.ndarray = ()
    pixels: np.ndarray = ()
    sampled: np.ndarray = ()
    area: np.ndarray = ()
    height: np.ndarray = ()


def source_values(png):
    """A mask's values as its file holds them, (H, W) uint8.

    Raises:
      UserError: the file holds colours.
    """
    mask = Image.open(io.BytesIO(png))
    if mask.mode not in ("L", "P"):
        channels = np.asarray(mask.convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise UserError(f"its mask holds colours (mode {mask.mode})")
        return channels[..., 0]
    return np.asarray(mask)


def _image_size(jpeg):
    """(width, height) of a JPEG, all of whose data is read, at an eighth of its size."""
    image = Image.open(io.BytesIO(jpeg))
    size = image.size
    image.draft("RGB", (size[0] // 8, size[1] // 8))
    image.load()
    return size


def describe_mask(facts, mask_HW):
    """Fills in what `FrameFacts` says of a mask."""
    counts = np.bincount(mask_HW.ravel(), minlength=256)
    step = max(min(mask_HW.shape) // ROWS, 1)
    coarse = mask_HW[step // 2 :: step, step // 2 :: step]
    heights = (np.arange(len(coarse)) + 0.5) / len(coarse)
    sampled = np.bincount(coarse.ravel(), minlength=256)
    weighted = np.bincount(coarse.ravel(), np.repeat(heights, coarse.shape[1]), minlength=256)
    facts.has_mask = True
    facts.values, facts.sampled = np.flatnonzero(counts), np.flatnonzero(sampled)
    facts.pixels, facts.area = counts[facts.values], sampled[facts.sampled] / coarse.size
    facts.height = weighted[facts.sampled] / sampled[facts.sampled]


def read_facts(record):
    """The facts of one record as `records.Frames` gives it."""
    jpeg, png = record["image_jpeg"], record["mask_png"]
    facts = FrameFacts(record["video"], record["frame"], *(hashlib.sha256(data).digest() for data in (jpeg, png)))
    try:
        size = _image_size(jpeg)
    except (OSError, SyntaxError) as error:
        facts.problem = f"its JPEG cannot be read ({error})"
        return facts
    if not png:
        return facts
    try:
        mask = source_values(png)
    except (UserError, OSError, SyntaxError) as error:
        facts.problem = f"its mask cannot be read ({error})"
        return facts
    if mask.shape != size[::-1]:
        facts.problem = f"its mask is {mask.shape[1]}x{mask.shape[0]} pixels, its frame {size[0]}x{size[1]}"
    describe_mask(facts, mask)
    return facts


@functools.lru_cache(maxsize=1)
def _open(path, split):
    return records.Frames(path, split)


def _read_chunk(task):
    path, split, start, stop = task
    frames, found = _open(path, split), []
    for number in range(start, stop):
        try:
            found.append(read_facts(frames[number]))
        except UserError as error:
            found.append(FrameFacts(problem=str(error).splitlines()[0]))
    return found


def facts_in_order(path, split, count, workers):
    """Yields the facts of records 0..count-1."""
    tasks = [(str(path), split, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if workers == 1:
        for task in tasks:
            yield from _read_chunk(task)
        return
    # Spawned, not forked: the readers of ArrayRecord hold threads.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for chunk in pool.imap(_read_chunk, tasks):
            yield from chunk


class Fingerprint:
    """Temporary."""

    def __init__(self):
        self.h = hashlib.sha256()

    def add(self, video, frame, jpeg, png):
        """Adds."""
        self.h.update(f"{video}\0{frame}\0".encode() + jpeg + png)

    def hexdigest(self):
        """Hex."""
        return self.h.hexdigest()


@dataclasses.dataclass
class SplitScan:
    """Sums over a split.

    Attributes:
      frames, masks: records, and those with a mask.
      pixels_V, frames_V: pixels of each source value, and frames that show it.
      largest: by value, (pixels, record) of the frame that shows most of it.
      first_seen: by value, "video/frame" of the first frame that shows it.
      bad: messages about what cannot be used.
      names: frame names by video, in order.
      by_image: (record, "video/frame") by SHA-256 of the JPEG.
      wrong_rows: "video/frame" whose class counts are not the stored ones.
      hasher: of the fingerprint, fed in order.
    """

    frames: int = 0
    masks: int = 0
    pixels_V: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    frames_V: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    largest: dict = dataclasses.field(default_factory=dict)
    first_seen: dict = dataclasses.field(default_factory=dict)
    bad: list = dataclasses.field(default_factory=list)
    names: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    by_image: dict = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    wrong_rows: list = dataclasses.field(default_factory=list)
    hasher: Fingerprint = dataclasses.field(default_factory=Fingerprint)
    sightings: Sightings = dataclasses.field(default_factory=Sightings)

    def add(self, number, facts, class_row=None):
        """Folds one record in; `class_row` is its row of the stored class counts, (V,)."""
        self.frames += 1
        where = f"{facts.video}/{facts.frame}" if facts.video else f"record {number}"
        if facts.problem:
            self.bad.append(f"{where}: {facts.problem}")
        if facts.video:
            self.hasher.add(facts.video, facts.frame, facts.jpeg_sha256, facts.png_sha256)
            self.names[facts.video].append(facts.frame)
            self.by_image[facts.jpeg_sha256].append((number, where))
        if not facts.has_mask:
            return
        self.masks += 1
        self.pixels_V[facts.values] += facts.pixels
        self.frames_V[facts.values] += 1
        for value, pixels in zip(facts.values.tolist(), facts.pixels.tolist(), strict=True):
            self.first_seen.setdefault(value, where)
            if pixels > self.largest.get(value, (0, 0))[0]:
                self.largest[value] = (pixels, number)
        if class_row is not None:
            row = np.zeros(256, np.int64)
            row[facts.values] = facts.pixels
            if not np.array_equal(row, class_row):
                self.wrong_rows.append(where)


def grids(facts):
    """Shares and vertical centres of values in a video's frames, (F, V) each, as `Sightings.add_video` takes them."""
    area_FV, height_FV = np.zeros((2, len(facts), 256))
    for frame, fact in enumerate(facts):
        area_FV[frame, fact.sampled], height_FV[frame, fact.sampled] = fact.area, fact.height
    return area_FV, height_FV


def scan(path, split, workers=1, class_pixels=None):
    """Reads a split.

    Args:
      path: folder of the converted data.
      workers: processes that read; 1 reads in this one.
      class_pixels: the stored counts (records x V, CSR) to compare with, or None.

    Returns:
      A `SplitScan`.

    Raises:
      UserError: the split's shards are not whole.
    """
    _open.cache_clear()  # The folder may hold other records than the last time.
    frames, result = _open(str(path), split), SplitScan()
    video_name, video = None, []

    def end_video():
        if video:
            result.sightings.add_video(*grids(video))
            video.clear()

    stream = facts_in_order(path, split, len(frames), workers)
    for number, facts in enumerate(progress(stream, f"verifying {split}", "frame", total=len(frames))):
        if facts.video != video_name:
            end_video()
            video_name = facts.video
        result.add(number, facts, None if class_pixels is None else class_pixels[[number]].toarray()[0])
        if facts.has_mask:
            video.append(facts)
    end_video()
    return result
