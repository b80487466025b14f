"""Reads every record of a split once, in several processes, and keeps what verification asks for.

It keeps a few hundred bytes of each frame (`FrameFacts`). The main process adds them up, in order: memory does not grow
with the pictures. Shapes: V = 256 source values of a mask, F frames of a video.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int, UInt8

from data_prep.verification.label_shift import Sightings
from vspw_jax.console.errors import UserError
from vspw_jax.console.progress import progress
from vspw_jax.data import class_pixels, records
from vspw_jax.files import mask_png, pictures

CHUNK = 32
"""Records that a worker takes at a time."""

ROWS = 120
"""About how many rows and columns of a mask are enough to say how high a class is."""

Run = Callable[[Callable, Iterable], Iterable]
"""A function like `map`, which keeps the order."""


def _empty() -> Int[np.ndarray, "0"]:
    return np.zeros(0, np.int64)


@dataclasses.dataclass
class FrameFacts:
    """What is kept of a record.

    Attributes:
      problem: what is wrong with it, or None.
      size: width and height of its image in pixels; (0, 0) if that is damaged.
      values, pixels: source values in its mask, and how many pixels each has.
      sampled: source values on a coarse grid of its mask.
      area, height: their shares of the grid, and their vertical centres (0 top, 1 bottom).
    """

    video: str = ""
    frame: str = ""
    jpeg_sha256: str = ""
    png_sha256: str = ""
    has_mask: bool = False
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    values: Int[np.ndarray, " K"] = dataclasses.field(default_factory=_empty)
    pixels: Int[np.ndarray, " K"] = dataclasses.field(default_factory=_empty)
    sampled: Int[np.ndarray, " S"] = dataclasses.field(default_factory=_empty)
    area: Float[np.ndarray, " S"] = dataclasses.field(default_factory=_empty)
    height: Float[np.ndarray, " S"] = dataclasses.field(default_factory=_empty)


def describe_mask(facts: FrameFacts, mask_HW: UInt8[np.ndarray, "H W"]) -> None:
    """Fills in what `FrameFacts` says of a mask."""
    counts = class_pixels.count(mask_HW)
    step = max(min(mask_HW.shape) // ROWS, 1)
    coarse = mask_HW[step // 2 :: step, step // 2 :: step]
    heights = (np.arange(len(coarse)) + 0.5) / len(coarse)
    sampled = np.bincount(coarse.ravel(), minlength=256)
    weighted = np.bincount(coarse.ravel(), np.repeat(heights, coarse.shape[1]), minlength=256)
    facts.has_mask = True
    facts.values, facts.pixels = np.array(list(counts)), np.array(list(counts.values()))
    facts.sampled = np.flatnonzero(sampled)
    facts.area = sampled[facts.sampled] / coarse.size
    facts.height = weighted[facts.sampled] / sampled[facts.sampled]


def read_facts(record: records.Record) -> FrameFacts:
    """The facts of one record."""
    jpeg, png = record["image_jpeg"], record["mask_png"]
    jpeg_sha256, png_sha256 = (hashlib.sha256(data).hexdigest() for data in (jpeg, png))
    facts = FrameFacts(record["video"], record["frame"], jpeg_sha256, png_sha256)
    try:
        facts.size = pictures.check(jpeg)
    except UserError as error:
        facts.problem = f"its image {error}"
        return facts
    if not png:
        return facts
    try:
        mask = mask_png.decode(png)
    except UserError as error:
        facts.problem = f"its mask {error}"
        return facts
    if mask.shape != facts.size[::-1]:
        own = f"{facts.size[0]}x{facts.size[1]}"
        facts.problem = f"its mask is {mask.shape[1]}x{mask.shape[0]} pixels, its frame {own}"
    describe_mask(facts, mask)
    return facts


@functools.lru_cache(maxsize=1)
def _open(path: str, split: str) -> records.Frames:
    return records.Frames(path, split)


def _read_chunk(task: tuple[str, str, int, int]) -> list[FrameFacts]:
    path, split, start, stop = task
    frames, found = _open(path, split), list[FrameFacts]()
    for number in range(start, stop):
        try:
            found.append(read_facts(frames[number]))
        except UserError as error:
            found.append(FrameFacts(problem=str(error).splitlines()[0]))
    return found


@contextlib.contextmanager
def readers(workers: int) -> Iterator[Run]:
    """Gives a `map` that keeps the order and runs in so many processes; 1 is this process."""
    if workers == 1:
        yield map
        return
    # The processes are spawned, not forked, because ArrayRecord's readers hold threads.
    # Ctrl-C reaches them too, but it is for this process to end them.
    context, ignore_interrupts = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    with concurrent.futures.ProcessPoolExecutor(workers, context, signal.signal, ignore_interrupts) as pool:
        yield pool.map


def facts_in_order(path: pathlib.Path | str, split: str, count: int, run: Run = map) -> Iterator[FrameFacts]:
    """Yields the facts of records 0..count-1; `run` is what `readers` gives."""
    tasks = [(str(path), split, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    for chunk in run(_read_chunk, tasks):
        yield from chunk


@dataclasses.dataclass
class SplitScan:
    """Sums over a split.

    Attributes:
      frames, masks: number of records, and of those with a mask.
      pixels_V, frames_V: number of pixels of each source value, and of frames that show it.
      largest: (pixels, record) of the frame that shows most of a value, by value.
      first_seen: "video/frame" of the first frame that shows a value, by value.
      bad: messages about what cannot be used.
      names: frame names by video, in order.
      first_sizes: (frame, its size) of the first whole frame, by video.
      resized: what says which frames have another size than their video's first one, by whether they have masks.
      by_image: (record, "video/frame") by SHA-256 of the JPEG.
      wrong_rows: "video/frame" whose class counts are not the stored ones.
      digests: what the fingerprint is made of, as `records.fingerprint` takes it.
      sightings: how often, how large and how high the values are seen.
    """

    frames: int = 0
    masks: int = 0
    pixels_V: Int[np.ndarray, " V"] = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    frames_V: Int[np.ndarray, " V"] = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    largest: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    first_seen: dict[int, str] = dataclasses.field(default_factory=dict)
    bad: list[str] = dataclasses.field(default_factory=list)
    names: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    first_sizes: dict[str, tuple[str, tuple[int, int]]] = dataclasses.field(default_factory=dict)
    resized: dict[bool, list[str]] = dataclasses.field(default_factory=lambda: {True: [], False: []})
    by_image: dict[str, list[tuple[int, str]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    wrong_rows: list[str] = dataclasses.field(default_factory=list)
    digests: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)
    sightings: Sightings = dataclasses.field(default_factory=Sightings)

    def add(self, number: int, facts: FrameFacts, stored: Mapping[int, int] | None = None) -> None:
        """Adds one record; `stored` is what the class counts beside the shards say of it, {value: pixels}."""
        self.frames += 1
        where = f"{facts.video}/{facts.frame}" if facts.video else f"record {number}"
        if facts.problem:
            self.bad.append(f"{where}: {facts.problem}")
        if facts.video:
            self.digests.append((facts.video, facts.frame, facts.jpeg_sha256, facts.png_sha256))
            self.names[facts.video].append(facts.frame)
            self.by_image[facts.jpeg_sha256].append((number, where))
        if facts.size[0]:
            first, size = self.first_sizes.setdefault(facts.video, (facts.frame, facts.size))
            if facts.size != size:
                sizes = ["x".join(map(str, pair)) for pair in (facts.size, size)]
                self.resized[facts.has_mask].append(f"{where} is {sizes[0]} pixels, {facts.video}/{first} {sizes[1]}")
        counts = dict(zip(facts.values.tolist(), facts.pixels.tolist(), strict=True))
        if stored is not None and stored != counts:
            self.wrong_rows.append(where)
        if not facts.has_mask:
            return
        self.masks += 1
        self.pixels_V[facts.values] += facts.pixels
        self.frames_V[facts.values] += 1
        for value, pixels in counts.items():
            self.first_seen.setdefault(value, where)
            if pixels > self.largest.get(value, (0, 0))[0]:
                self.largest[value] = (pixels, number)

    @property
    def fingerprint(self) -> str:
        """The split's fingerprint, made anew from the bytes that were read."""
        return records.fingerprint(self.digests)


def grids(facts: Sequence[FrameFacts]) -> tuple[Float[np.ndarray, "F V"], Float[np.ndarray, "F V"]]:
    """Shares and vertical centres of values in a video's frames, as `Sightings.add_video` takes them."""
    area_FV, height_FV = np.zeros((2, len(facts), 256))
    for frame, fact in enumerate(facts):
        area_FV[frame, fact.sampled], height_FV[frame, fact.sampled] = fact.area, fact.height
    return area_FV, height_FV


def _stored_counts(pixels_N256: scipy.sparse.csr_array, number: int) -> dict[int, int]:
    """A record's row as {value: pixels}."""
    row = slice(*pixels_N256.indptr[number : number + 2])
    return dict(zip(pixels_N256.indices[row].tolist(), pixels_N256.data[row].tolist(), strict=True))


def scan(path: pathlib.Path | str, split: str, run: Run = map) -> SplitScan:
    """Reads a split of the converted data in the folder `path`; `run` is what `readers` gives.

    Raises:
      UserError: the split's shards are not whole.
    """
    _open.cache_clear()  # The folder may hold other records than the last time.
    frames, result = _open(str(path), split), SplitScan()
    stored_N256 = class_pixels.load(frames.path, split, len(frames))
    video: list[FrameFacts] = []

    def end_video() -> None:
        if video:
            result.sightings.add_video(*grids(video))
            video.clear()

    stream = facts_in_order(path, split, len(frames), run)
    for number, facts in enumerate(progress(stream, f"verifying {split}", "frame", total=len(frames))):
        if video and facts.video != video[-1].video:
            end_video()
        result.add(number, facts, _stored_counts(stored_N256, number))
        if facts.has_mask:
            video.append(facts)
    end_video()
    return result
