"""Images or videos beside their masks, in the layouts that people have.

    images/[<split>/][<video>/]<frame>.jpg    with masks/ of the same folders and names
    <split>/images/[<video>/]<frame>.jpg      with <split>/masks/

Files of a folder below the split are the frames of a video, in the order of their numbers; files directly in the split
are single images, each a "video" of its own.
"""

import collections
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from data_prep.conversion import video_folders
from data_prep.conversion.frames import Frame
from vspw_jax.console.errors import UserError, listed, warn
from vspw_jax.files import frame_names, pictures
from vspw_jax.files.sources import Source

IMAGES = ("images", "frames", "img")
MASKS = ("masks", "annotations", "labels", "gt")
"""Names of the two folders."""
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
"""Names of their folders, which a year may follow (train2017)."""
DEEPEST = 2
"""Folders that may stand above images/: an archive's own and a split's."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How a layout is read.

    Attributes:
      mask_suffix: what stands between a frame's name and .png in the name of its mask.
      single_images: whether files of a folder are images by themselves, not the frames of a video.
      val_share: of the videos, single images included, that go to val where nothing states the splits.
      seed: of drawing them.
    """

    mask_suffix: str = ""
    single_images: bool = False
    val_share: float = 0.2
    seed: int = 0


DEFAULT = Options()


@dataclasses.dataclass(frozen=True)
class Root:
    """A folder of images and the folder of their masks, which may be missing; `above` is what they stand in."""

    above: str
    images: str
    masks: str | None

    def path(self, kind: str) -> str:
        """The path of a folder in it, with / at the end."""
        return f"{self.above}/{kind}/" if self.above else f"{kind}/"


@dataclasses.dataclass(frozen=True)
class File:
    """An image: its path in the source, its folders below the split, its split if a folder states it, its mask."""

    image: str
    folders: tuple[str, ...]
    split: str | None
    mask: str | None


def split_of(folder: str) -> str | None:
    """The split that a folder's name means, or None."""
    name = re.sub(r"\d{4}$", "", folder.lower())
    return next((split for split, names in SPLITS.items() if name in names), None)


def _roots(source: Source) -> list[Root]:
    """All folders of images; UserError where there is none, or one beside another."""
    found = collections.defaultdict[str, set[str]](set)
    there = set()
    for name in source.sizes:
        parts = name.split("/")[:-1]
        there |= {("/".join(parts[:depth]), part) for depth, part in enumerate(parts[: DEEPEST + 1])}
        depth = next((n for n, part in enumerate(parts[: DEEPEST + 1]) if part in (*IMAGES, *MASKS)), None)
        if depth is not None and parts[depth] in IMAGES:
            found["/".join(parts[:depth])].add(parts[depth])
    if not found:
        top = sorted({name.split("/")[0] for name in source.sizes})
        raise UserError(
            f"{source.path} has no folder of images: expected {' or '.join(f'{name}/' for name in IMAGES)} beside "
            f"{' or '.join(f'{name}/' for name in MASKS)}, or VSPW's layout (train.txt, data/<video>/origin and mask); "
            f"found {listed(top) or 'nothing'}."
        )
    roots = []
    for above, names in sorted(found.items()):
        if len(names) > 1:
            raise UserError(f"{source.where(above)} has {' and '.join(sorted(names))}: expected one folder of images.")
        masks = [name for name in MASKS if (above, name) in there]
        roots.append(Root(above, names.pop(), masks[0] if masks else None))
    return roots


def _files(source: Source, root: Root, suffix: str) -> Iterator[File]:
    """The images of a root; its split is that of the folder that it stands in, if that is one."""
    start = root.path(root.images)
    names = [name.removeprefix(start) for name in source.sizes if name.startswith(start)]
    images = [name for name in names if name.lower().endswith(pictures.SUFFIXES)]
    if strange := sorted(set(names) - set(images)):
        warn(
            f"{len(strange)} files of {source.where(start)} are left out: {listed(strange, 3)}. Expected: images end "
            f"in {', '.join(pictures.SUFFIXES)}."
        )
    split = split_of(pathlib.PurePosixPath(root.above).name)
    masks = _masks(source, root, images, suffix)
    for name in images:
        yield File(start + name, tuple(name.split("/")[:-1]), split, masks.get(name))


def _masks(source: Source, root: Root, images: Sequence[str], suffix: str) -> dict[str, str]:
    """The masks of a root's images, which may not be there; warns of files among the masks that are no image's."""
    if root.masks is None:
        return {}
    start = root.path(root.masks)
    there = [name for name in source.sizes if name.startswith(start)]
    found = {name[:-4]: name for name in sorted(there) if name.lower().endswith(".png")}  # Of .PNG and .png the second.
    stems = {name: f"{start}{pathlib.PurePosixPath(name).with_suffix('')}{suffix}" for name in images}
    masks = {name: found.get(stem, f"{stem}.png") for name, stem in stems.items()}
    if strange := sorted(set(there) - set(masks.values())):
        warn(
            f"{len(strange)} files of {source.where(start)} are left out, as they are no image's mask: "
            f"{listed([name.removeprefix(start) for name in strange], 3)}. Expected: names of images that end in "
            f"{suffix}.png."
        )
    return masks


def _with_splits(source: Source, files: Sequence[File]) -> list[File]:
    """The same, with the splits that their first folders state, if they state any."""
    tops = {file.folders[0] if file.folders else "" for file in files}
    states = {top for top in tops if split_of(top)}
    if not states:
        return list(files)
    if others := sorted(tops - states):
        odd = " and ".join(name or "files beside them" for name in others)
        raise UserError(
            f"The images of {source.path} have folders of splits, {listed(sorted(states))}, and {odd}: expected all in "
            f"folders called {', '.join(SPLITS)}, or none."
        )
    return [dataclasses.replace(file, folders=file.folders[1:], split=split_of(file.folders[0])) for file in files]


def _all_files(source: Source, suffix: str) -> list[File]:
    roots = _roots(source)
    files = [file for root in roots for file in _files(source, root, suffix)]
    if len(roots) == 1:
        files = _with_splits(source, files)
    elif not all(file.split for file in files):
        raise UserError(
            f"{source.path} has several folders of images, in {listed([root.above or '.' for root in roots])}: "
            f"expected one, or one in each of {', '.join(SPLITS)}."
        )
    if not files:
        raise UserError(f"{source.path} holds no image: expected {', '.join(pictures.SUFFIXES)}.")
    if without := [file for file in files if file.mask is None and file.split != "test"]:
        expected = " or ".join(f"{name}/" for name in MASKS)
        raise UserError(
            f"{source.path} has no masks for {without[0].image}: expected {expected} beside its {roots[0].images}/."
        )
    return files


def _frames(source: Source, files: Sequence[File], single_images: bool) -> list[Frame]:
    """Frames in order: videos by name, with single images among them."""
    by_folder = collections.defaultdict[tuple[str, ...], list[File]](list)
    for file in files:
        by_folder[file.folders].append(file)
    videos: dict[str, list[Frame]] = {}
    for folders, own in by_folder.items():
        place = source.where(str(pathlib.PurePosixPath(own[0].image).parent))
        of_image = {file.image: file for file in own}
        by_stem = frame_names.by_stem(of_image, place)
        name = "-".join(folders)
        if name and not single_images:
            frames = [_frame(name, stem, of_image[by_stem[stem]]) for stem in frame_names.in_order(by_stem, place)]
            _add(videos, name, frames, source)
            continue
        for stem, image in by_stem.items():
            frame_names.check(stem, place)
            alone = "-".join((*folders, stem))
            _add(videos, alone, [_frame(alone, alone, of_image[image])], source)
    if complaint := frame_names.open_order((name, [frame.name for frame in own]) for name, own in videos.items()):
        warn(complaint)
    return [frame for name in sorted(videos, key=frame_names.natural) for frame in videos[name]]


def _frame(video: str, name: str, file: File) -> Frame:
    return Frame(video, name, file.image, file.mask)


def _add(videos: dict[str, list[Frame]], name: str, frames: list[Frame], source: Source) -> None:
    if name in videos:
        raise UserError(
            f"{videos[name][0].image} and {frames[0].image} of {source.path} would both be called {name}. Rename one."
        )
    videos[name] = frames


def read_splits(source: Source, options: Options) -> dict[str, list[Frame]]:
    """Frames by split: by folders or lists that are there; else a share of the videos is drawn for val, and said.

    Frames of the test split whose masks are not there have none; of others the conversion says it.

    Raises:
      UserError: no such layout, no masks, names that clash, a list of what is not there, too few videos to draw from.
    """
    files = _all_files(source, options.mask_suffix)
    if files[0].split:
        return {
            split: _frames(source, own, options.single_images)
            for split in SPLITS
            if (own := [_tested(source, file) for file in files if file.split == split])
        }
    frames = _frames(source, files, options.single_images)
    lists = {split: name for split in SPLITS for name in source.sizes if name.split("/")[-1] == f"{split}.txt"}
    if lists:
        return _listed(source, lists, frames)
    splits = drawn(frames, options.val_share, options.seed)
    counts = {split: len({frame.video for frame in own}) for split, own in splits.items()}
    print(
        f"No folders or lists state the splits: of {sum(counts.values())} videos and single images {counts['val']} "
        f"were drawn for val (--val-share={options.val_share:g}, --seed={options.seed})."
    )
    return splits


def _tested(source: Source, file: File) -> File:
    """The file, without a mask that a test image does not have."""
    return dataclasses.replace(file, mask=None) if file.split == "test" and file.mask not in source.sizes else file


def _listed(source: Source, lists: Mapping[str, str], frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Frames of the videos, or single images, that lists name."""
    result, known = {}, {frame.video for frame in frames}
    for split, file in lists.items():
        names = video_folders.read_list(source, file)
        wanted = {name if name in known else pathlib.PurePosixPath(name).stem for name in names}
        if unknown := sorted(wanted - known):
            raise UserError(
                f"{source.where(file)} names {listed(unknown, 3)}, which is not among the images. Expected the name of "
                "a video's folder, or of a single image, on each line."
            )
        result[split] = [frame for frame in frames if frame.video in wanted]
    videos = {split: {frame.video for frame in own} for split, own in result.items()}
    video_folders.warn_of_shared(source, videos)
    video_folders.warn_of_unlisted(source, known, videos)
    return result


def drawn(frames: Sequence[Frame], val_share: float, seed: int) -> dict[str, list[Frame]]:
    """Frames by split: a share of the videos is val's, drawn by the digests of their names."""
    videos = list(dict.fromkeys(frame.video for frame in frames))
    if len(videos) < 2 or not 0 < val_share < 1:
        raise UserError(
            f"Nothing states the splits of {len(videos)} videos and single images, of which --val-share={val_share:g} "
            "would go to val: expected two or more, and a share between 0 and 1. Or state the splits: images/train and "
            "images/val, or train.txt and val.txt."
        )
    digest = lambda video: hashlib.sha256(f"{seed} {video}".encode(errors="surrogateescape")).digest()
    order = sorted(videos, key=digest)  # Names that are no UTF-8 are refused later, with those of all converters.
    chosen = set(order[: min(max(round(val_share * len(videos)), 1), len(videos) - 1)])
    return {
        "train": [frame for frame in frames if frame.video not in chosen],
        "val": [frame for frame in frames if frame.video in chosen],
    }
