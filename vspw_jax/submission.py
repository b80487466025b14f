"""Makes a challenge entry of predictions on disk, or checks one; nothing is unpacked.

    python -m vspw_jax.submission --predictions=DIR --data=VSPW_480p --split=test --output=submission.zip
    python -m vspw_jax.submission --check=submission.zip --data=VSPW_480p --split=test

An entry holds <video>/<frame>.png for every frame of the split's videos, with class ids 0..123, one channel of 8 bits,
at the frame's size, as VSPW's devkit saves its own. --output=X.zip packs them, --output=DIR copies them to a folder;
the zip or folder is there whole or not at all, and the same predictions make the same bytes. --check reads any folder,
.zip or .tar and lists everything that is wrong.
"""

import argparse
import functools
import itertools
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from vspw_jax.buckets import arguments
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError, counted, listed, run_program
from vspw_jax.console.progress import progress
from vspw_jax.files import mask_png, sources
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_file, check_folder, check_parent
from vspw_jax.metrics import predictions, truth

FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""Of zip's calendar. Every file gets it, so that an entry's bytes do not depend on when it was packed."""

LISTED = 20
READ_ONLY_FILE = 0o100644 << 16


def inner_folder(names: Iterable[str], videos: Sequence[truth.NamedVideo]) -> str:
    """The folder that holds all files of an entry, with its slash; empty where the videos are at the top."""
    first = {name.split("/")[0] for name in names}
    if len(first) == 1 and not first & {video.name for video in videos}:
        return f"{first.pop()}/"
    return ""


def problems_of(read: Callable[[], bytes], size: tuple[int, int], role: str, plain: bool) -> str:
    """Says what is wrong with a prediction; empty where nothing is.

    Args:
      read: gives its bytes.
      size: width and height of its frame.
      role, plain: as `check` has them.
    """
    try:
        png = read()
        ids = mask_png.decode(png)
    except (UserError, OSError) as error:
        return str(error)
    if plain and not mask_png.is_plain(png):
        return "is not grey of 8 bits or a palette: the devkit would read other ids. --predictions=DIR mends that"
    if ids.shape[::-1] != size:
        return f"is {ids.shape[1]}x{ids.shape[0]} pixels, its frame {size[0]}x{size[1]}"
    allowed = np.zeros(256, bool)
    low = int(role == predictions.RAW_IDS)
    allowed[low : vspw.NUM_CLASSES + low] = True
    strange = np.unique(ids[~allowed[ids]])
    if strange.size:
        found = listed(map(str, strange.tolist()))
        hint = f" {predictions.RAW_HINT}" if low == 0 and strange.tolist() == [vspw.NUM_CLASSES] else ""
        return f"holds {found}: expected class ids {low}..{vspw.NUM_CLASSES - 1 + low}.{hint}"
    return ""


def listing(source: sources.Source, videos: Sequence[truth.NamedVideo]) -> tuple[str, list[str]]:
    """(prefix of the entry's names, lines about files that are missing or too many)."""
    prefix = inner_folder(source.sizes, videos)
    by_video = {video.name: [f"{prefix}{video.name}/{frame}.png" for frame in video.frames] for video in videos}
    lines = []
    for name, own in by_video.items():
        missing = [path for path in own if path not in source.sizes]
        if len(missing) == len(own):
            lines.append(f"{name}: the whole video is missing, {len(own)} frames")
        else:
            lines += [f"{path}: is missing" for path in missing]
    strange = source.sizes.keys() - itertools.chain.from_iterable(by_video.values())
    return prefix, lines + [f"{path}: is no frame of this split" for path in sorted(strange)]


def check(
    path: sources.Source | pathlib.Path | str,
    data: truth.Truth,
    role: str = predictions.TRAIN_IDS,
    plain: bool = True,
) -> tuple[sources.Source, str]:
    """Checks an entry as a whole.

    Args:
      path: folder, .zip or .tar, or an opened one.
      role: of `predictions.ROLES`.
      plain: whether every file must be as the devkit reads it, of 8 bits or with a palette.

    Returns:
      (the opened source, the prefix of its names).

    Raises:
      UserError: files are missing, too many or wrong; it lists them.
    """
    if not vspw.are(data.classes):
        raise UserError(
            f"{data.path} has classes of its own ({listed(data.classes.names, 3)}): expected VSPW, whose challenge "
            "takes entries."
        )
    source = sources.open_source(path)
    prefix, lines = listing(source, data.videos)
    frames = [(video.name, frame) for video in data.videos for frame in video.frames]
    for video, frame in progress(frames, "checking", "frame"):
        name = f"{prefix}{video}/{frame}.png"
        if name in source.sizes:
            found = problems_of(functools.partial(source.read, name), data.size(video, frame), role, plain)
            lines += [f"{name}: {found}"] if found else []
    if lines:
        more = f"\n  and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
        shown = "\n  ".join(lines[:LISTED])
        raise UserError(f"{source.path} is no entry for split {data.split!r} of {data.path}:\n  {shown}{more}")
    return source, prefix


def entry_files(source: sources.Source, prefix: str, data: truth.Truth, role: str) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) of an entry's files in order. The bytes are the source's, except where ids must change."""
    for video in sorted(data.videos, key=lambda video: video.name):
        for frame in video.frames:
            png = source.read(f"{prefix}{video.name}/{frame}.png")
            if role == predictions.RAW_IDS or not mask_png.is_plain(png):
                png = mask_png.encode(predictions.to_train_ids(mask_png.decode(png), role), vspw.classes())
            yield f"{video.name}/{frame}.png", png


def write_zip(path: pathlib.Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Packs (name, bytes) into a zip that depends on nothing else. PNGs are stored, as they are compressed already."""
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name, FIRST_DAY)
            info.create_system, info.external_attr = 3, READ_ONLY_FILE
            archive.writestr(info, content)


def write_folder(path: pathlib.Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes (name, bytes) into a new folder, which takes its name when it is whole."""
    aside = path.with_name(f"partial-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name, content in files:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).write_bytes(content)
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write(
    predicted: pathlib.Path | str, data: truth.Truth, output: pathlib.Path | str, role: str = predictions.TRAIN_IDS
) -> None:
    """Checks a folder of predictions, then makes an entry of it; see the module."""
    output = pathlib.Path(output)
    check_parent(output, "--output=X.zip")
    if output.suffix == ".zip":
        check_file(output, "--output=X.zip")
    elif output.exists():
        raise UserError(f"{output} exists. Delete it, or choose another --output.")
    else:
        check_folder(output.absolute().parent, "--output=DIR")
    folder = predictions.Folder(predicted, role)
    folder.check(data.videos)
    source = sources.open_source(folder.path)
    # The folder may hold other videos too: they are left out.
    source = source.only(f"{video.name}/{frame}.png" for video in data.videos for frame in video.frames)
    check(source, data, role, plain=False)
    files = progress(
        entry_files(source, "", data, role), "packing", "frame", total=sum(len(video.frames) for video in data.videos)
    )
    (write_zip if output.suffix == ".zip" else write_folder)(output, files)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m vspw_jax.submission",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 done or nothing wrong, 2 for what you must mend.",
    )
    what = result.add_mutually_exclusive_group(required=True)
    what.add_argument("--predictions", metavar="DIR", help="make an entry of these: DIR/<video>/<frame>.png")
    what.add_argument("--check", metavar="PATH", help="check an entry: a folder, .zip or .tar")
    truth.add_options(result, split="test")
    result.add_argument("--output", metavar="X.zip|DIR", help="what to make, of --predictions")
    predictions.add_options(result)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    is_file = str(options.output).endswith(".zip")
    written = {"files" if is_file else "folders": ("output",)}
    arguments.on_disk(options, read=("predictions", "check"), opened=("data",), **written)
    if bool(options.predictions) != bool(options.output):
        raise UserError("--predictions=DIR and --output=X.zip go together; --check=X.zip needs neither.")
    data = truth.open_truth(options.data, options.split)
    frames = sum(len(video.frames) for video in data.videos)
    size = f"{counted(len(data.videos), 'video')}, {counted(frames, 'frame')}"
    if options.check:
        if options.masks_are != predictions.TRAIN_IDS:
            raise UserError("An entry holds train ids: --masks-are goes with --predictions alone.")
        _, prefix = check(options.check, data)
        inside = f" Its videos are in the folder {prefix} of it; the devkit has them at the top." if prefix else ""
        print(f"{options.check} is whole: {size}.{inside}")
    else:
        write(options.predictions, data, options.output, options.masks_are)
        print(f"Wrote {options.output}: {size}.")


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
