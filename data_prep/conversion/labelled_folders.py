"""Images or videos beside their masks: images/[<split>/][<video>/]<frame>.jpg with masks/ of the same layout.

Files of a folder below the split are the frames of a video, in the order of their numbers; files directly in the split
are single images, each a "video" of its own.
"""

import collections
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from data_prep.conversion.frames import Frame
from vspw_jax.console.errors import UserError, listed, warn
from vspw_jax.files import frame_names, pictures
from vspw_jax.files.sources import Source

IMAGES = ("images", "frames", "img")
MASKS = ("masks", "annotations", "labels", "gt")
"""Names of the two folders."""
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of their folders."""


def _root(source: Source) -> tuple[str, str, str | None]:
    """(prefix, folder of images, folder of masks or None)."""
    for prefix in ("", *sorted({f"{name.split('/')[0]}/" for name in source.sizes if "/" in name})):
        for images in IMAGES:
            if any(name.startswith(f"{prefix}{images}/") for name in source.sizes):
                there = [m for m in MASKS if any(name.startswith(f"{prefix}{m}/") for name in source.sizes)]
                return prefix, images, there[0] if there else None
    found = sorted({name.split("/")[0] for name in source.sizes})[:8]
    raise UserError(
        f"{source.path} has no folder of images: expected {' or '.join(f'{name}/' for name in IMAGES)} beside "
        f"{' or '.join(f'{name}/' for name in MASKS)}, or VSPW's layout (train.txt, data/<video>/origin and mask); "
        f"found {found}."
    )


def _split_of(folder: str) -> str | None:
    return next((split for split, names in SPLITS.items() if folder.lower() in names), None)


class Layout:
    """The images of a source and where their masks are.

    Args:
      mask_suffix: what stands between a frame's name and .png in the name of its mask.
      single_images: whether files of a folder are images by themselves, not the frames of a video.

    Raises:
      UserError: there is no folder of images, no image in it, or names clash.
    """

    def __init__(self, source: Source, mask_suffix: str = "", single_images: bool = False) -> None:
        self._source, self._suffix, self._single = source, mask_suffix, single_images
        self._prefix, images, self._masks = _root(source)
        start = f"{self._prefix}{images}/"
        files = [name.removeprefix(start) for name in source.sizes if name.startswith(start)]
        self._files = [name for name in files if name.lower().endswith(pictures.SUFFIXES)]
        self._images = start
        if strange := [name for name in files if not name.lower().endswith(pictures.SUFFIXES)]:
            warn(
                f"{len(strange)} files of {source.where(start)} are left out: {listed(strange, 3)}. Expected: images "
                f"end in {', '.join(pictures.SUFFIXES)}."
            )
        if not self._files:
            raise UserError(f"{source.where(start)} holds no image: expected {', '.join(pictures.SUFFIXES)}.")

    def _mask(self, image: str) -> str | None:
        if self._masks is None:
            return None
        return f"{self._prefix}{self._masks}/{pathlib.PurePosixPath(image).with_suffix('')}{self._suffix}.png"

    def _frames(self, files: Sequence[str], below: int, needs_masks: bool) -> list[Frame]:
        """Frames of files whose first `below` folders are the split's."""
        by_video: dict[str, list[str]] = collections.defaultdict(list)
        for file in files:
            folders = file.split("/")[below:-1]
            by_video["-".join(folders)].append(file)
        frames = []
        for video in sorted(by_video, key=frame_names.natural):
            place = self._source.where(f"{self._images}{video or ''}")
            by_stem = frame_names.by_stem(by_video[video], place)
            for stem in frame_names.in_order(by_stem, place):
                is_alone = not video or self._single
                name = f"{video}-{stem}" if video and self._single else stem
                mask = self._mask(by_stem[stem])
                has_mask = mask is not None and (needs_masks or mask in self._source.sizes)
                frames.append(
                    Frame(name if is_alone else video, name, self._images + by_stem[stem], mask if has_mask else None)
                )
        self._check_names(frames)
        return frames

    def _check_names(self, frames: Sequence[Frame]) -> None:
        twice = [n for n, count in collections.Counter((f.video, f.name) for f in frames).items() if count > 1]
        if twice:
            raise UserError(
                f"Two frames of {self._source.path} would be called {twice[0][0]}/{twice[0][1]}. Rename one of them."
            )

    def splits(self, val_share: float, seed: int) -> dict[str, list[Frame]]:
        """Frames by split: by folders or lists that are there; else a share of the videos is drawn for val.

        Args:
          val_share: of the videos, single images included; at least one of either split.
          seed: of the drawing.

        Raises:
          UserError: a list names what is not there; too few videos to draw from.
        """
        folders = {file.split("/")[0] for file in self._files if "/" in file}
        if folders and all(map(_split_of, folders)):
            by_split: dict[str, list[str]] = collections.defaultdict(list)
            for file in self._files:
                if "/" in file:
                    by_split[str(_split_of(file.split("/")[0]))].append(file)
            return {s: self._frames(by_split[s], 1, s != "test") for s in SPLITS if s in by_split}
        frames = self._frames(self._files, 0, needs_masks=False)
        lists = {split: f"{self._prefix}{split}.txt" for split in SPLITS}
        stated = {split: name for split, name in lists.items() if name in self._source.sizes}
        chosen = self._listed(stated, frames) if stated else drawn(frames, val_share, seed)
        if self._masks is None:
            raise UserError(
                f"{self._source.path} has no masks: expected {' or '.join(f'{name}/' for name in MASKS)} beside the "
                "images."
            )
        return {
            split: [self._labelled(frame) for frame in own] if split != "test" else own for split, own in chosen.items()
        }

    def _labelled(self, frame: Frame) -> Frame:
        """The frame with a mask, which may be missing: the conversion then says so."""
        return Frame(frame.video, frame.name, frame.image, self._mask(frame.image.removeprefix(self._images)))

    def _listed(self, lists: Mapping[str, str], frames: Sequence[Frame]) -> dict[str, list[Frame]]:
        """Frames of the videos, or single images, that lists name, one a line."""
        result = {}
        for split, file in lists.items():
            names = [line.strip() for line in self._source.read(file).decode("utf-8-sig").splitlines() if line.strip()]
            known = {frame.video for frame in frames}
            wanted = {name if name in known else str(pathlib.PurePosixPath(name).with_suffix("")) for name in names}
            if unknown := sorted(wanted - known):
                raise UserError(
                    f"{self._source.where(file)} names {listed(unknown, 3)}, which {self._images} does not hold. "
                    "Expected the name of a video's folder, or of a single image, on each line."
                )
            result[split] = [frame for frame in frames if frame.video in wanted]
        return result


def drawn(frames: Sequence[Frame], val_share: float, seed: int) -> dict[str, list[Frame]]:
    """Frames by split: a share of the videos is val's, drawn by the digests of their names."""
    videos = list(dict.fromkeys(frame.video for frame in frames))
    if len(videos) < 2 or not 0 < val_share < 1:
        raise UserError(
            f"There are {len(videos)} videos or single images, of which --val-share={val_share:g} go to val: expected "
            "two or more, and a share between 0 and 1. Or name the splits: images/train and images/val, or train.txt "
            "and val.txt."
        )
    order = sorted(videos, key=lambda video: hashlib.sha256(f"{seed} {video}".encode()).digest())
    chosen = set(order[: min(max(round(val_share * len(videos)), 1), len(videos) - 1)])
    return {
        "train": [frame for frame in frames if frame.video not in chosen],
        "val": [frame for frame in frames if frame.video in chosen],
    }
