"""VSPW's layout: lists of videos, and data/<video>/{origin/<frame>.jpg,mask/<frame>.png}.

Frames may be pictures of any kind that `pictures` takes.
"""

import codecs
import collections
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from data_prep.conversion.frames import Frame
from vspw_jax.console.errors import UserError, listed, warn
from vspw_jax.files import frame_names, pictures
from vspw_jax.files.sources import Source

SPLITS = ("train", "val", "test")
"""The videos of all splits but test must have masks."""
SUFFIXES = {"origin": pictures.SUFFIXES, "mask": (".png",)}
"""Of the files in a video's folders, in any case."""


def read_splits(source: Source) -> tuple[str, dict[str, list[str]]]:
    """(prefix, {split: video names}) from the lists that are there; the prefix leads to them within the source."""
    found = [name for name in source.sizes if pathlib.PurePosixPath(name).name in {f"{split}.txt" for split in SPLITS}]
    if not found:
        there = sorted({name.split("/")[0] for name in source.sizes})[:8]
        raise UserError(
            f"{source.path} does not look like VSPW: expected at least one of {', '.join(f'{s}.txt' for s in SPLITS)} "
            f"and data/<video>/origin, found {there}."
        )
    prefix = min(found, key=lambda name: name.count("/")).rpartition("/")[0]
    prefix += "/" if prefix else ""
    lists = {split: f"{prefix}{split}.txt" for split in SPLITS}
    splits = {split: read_list(source, name) for split, name in lists.items() if name in source.sizes}
    warn_of_shared(source, splits)
    return prefix, splits


def warn_of_shared(source: Source, splits: Mapping[str, Iterable[str]]) -> None:
    """Warns where lists name a video for training and for another split."""
    for split in ("val", "test"):
        if shared := sorted(set(splits.get("train", ())) & set(splits.get(split, ()))):
            warn(f"{source.path} lists {listed(shared)} in train.txt and in {split}.txt: scores will look too good.")


def warn_of_unlisted(source: Source, there: Iterable[str], splits: Mapping[str, Iterable[str]]) -> None:
    """Warns where no list names some of the videos, or single images, that are there."""
    if left := sorted(set(there).difference(*splits.values()), key=frame_names.natural):
        warn(f"{len(left)} videos or images of {source.path} are left out, as no list names them: {listed(left, 3)}.")


def read_list(source: Source, name: str) -> list[str]:
    """The names in a list: one a line, which may hold spaces; empty lines say nothing."""
    lines = _text(source, name).replace("\r", "\n").split("\n")
    videos = [line.strip() for line in lines if line.strip()]
    wrong = [video for video in videos if "/" in video or "\\" in video or video.startswith(".")]
    doubled = [video for video, count in collections.Counter(videos).items() if count > 1]
    if not videos or wrong or doubled:
        problem = (
            "no video" if not videos else f"{wrong[0]!r}, which is no video name" if wrong else f"{doubled[0]} twice"
        )
        raise UserError(f"{source.where(name)} lists {problem}. Expected one video name a line.")
    return videos


def _text(source: Source, name: str) -> str:
    """A list's text: UTF-8, or UTF-16 that says so by its first bytes, as Windows' editors write it."""
    data = source.read(name)
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
        if "\0" in text:
            raise UserError("it holds bytes that are 0, as UTF-16 does")
    except (UnicodeDecodeError, UserError) as error:
        raise UserError(f"{source.where(name)} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    return text


def _by_frame(source: Source, folder: str, files: Sequence[str], kind: str) -> dict[str, str]:
    """Files of a video in its folder `kind`, in order, by the name of their frame: the file's name without suffix."""
    own = [name for name in files if name.startswith(f"{kind}/") and _is_usable(name.removeprefix(f"{kind}/"), kind)]
    place = source.where(f"{folder}/{kind}")
    by_stem = frame_names.by_stem(own, place)
    return {stem: by_stem[stem] for stem in frame_names.in_order(by_stem, place)}


def _is_usable(name: str, kind: str) -> bool:
    return "/" not in name and name.lower().endswith(SUFFIXES[kind])


def list_frames(source: Source, folder: str, video: str, files: Sequence[str], needs_masks: bool) -> list[Frame]:
    """Frames of a video in order; their files may not exist.

    Args:
      source: names the folder in messages.
      folder: the video's, within the source.
      files: names in the folder, such as origin/00000001.jpg.
      needs_masks: whether frames must have masks even if the video has none.

    Raises:
      UserError: there are none, or their names leave the order open.
    """
    images, masks = (_by_frame(source, folder, files, kind) for kind in ("origin", "mask"))
    if not images:
        there = [name.removeprefix("origin/") for name in files if name.startswith("origin/")]
        raise UserError(
            f"Video {video} has no frames: expected files in {source.where(folder)}/origin that end in "
            f"{', '.join(SUFFIXES['origin'])}, found {listed(there, 3) or 'none'}."
        )
    labelled = needs_masks or masks
    names = [*images, *(name for name in masks if name not in images)]
    return [
        Frame(
            video,
            name,
            f"{folder}/{images.get(name, f'origin/{name}.jpg')}",
            f"{folder}/{masks.get(name, f'mask/{name}.png')}" if labelled else None,
        )
        for name in sorted(names, key=frame_names.natural)
    ]


def all_frames(source: Source) -> dict[str, list[Frame]]:
    """Frames by split, of all lists that are there; warns of videos that none of them names."""
    prefix, splits = read_splits(source)
    parts = [name.removeprefix(prefix).split("/") for name in source.sizes if name.startswith(f"{prefix}data/")]
    warn_of_unlisted(source, {part[1] for part in parts if part[2:3] == ["origin"]}, splits)
    return {split: split_frames(source, prefix, videos, split) for split, videos in splits.items()}


def split_frames(source: Source, prefix: str, videos: Iterable[str], split: str) -> list[Frame]:
    """Frames of the videos of a split, in the order of the list; warns of files among them that are no frames."""
    files, start = dict[str, list[str]](), len(f"{prefix}data/")
    for name in source.sizes:
        if name.startswith(f"{prefix}data/"):
            video, _, rest = name[start:].partition("/")
            files.setdefault(video, []).append(rest)
    frames = {
        video: list_frames(source, f"{prefix}data/{video}", video, files.get(video, ()), split != "test")
        for video in videos
    }
    _warn_of_strangers(source, [f"{video}/{name}" for video in frames for name in files[video]], split)
    if complaint := frame_names.open_order((video, [frame.name for frame in own]) for video, own in frames.items()):
        warn(complaint)
    return [frame for own in frames.values() for frame in own]


def _warn_of_strangers(source: Source, files: Iterable[str], split: str) -> None:
    places = [(name, *name.split("/", 2)[1:]) for name in files if name.count("/") > 1]
    strange = [name for name, kind, rest in places if kind in SUFFIXES and not _is_usable(rest, kind)]
    if strange:
        expected = f"frames end in {', '.join(SUFFIXES['origin'])}, masks in {', '.join(SUFFIXES['mask'])}"
        warn(
            f"{len(strange)} files among the frames of split {split} of {source.path} are left out: "
            f"{listed(strange, 3)}. Expected: {expected}."
        )
