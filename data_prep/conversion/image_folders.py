"""Data sets of single images: images/<folder>/<name>.jpg with annotations/<folder>/<name>.png.

Every image is a "video" of one frame. What COCO-Stuff and ADE20K have in common is here.
"""

import argparse
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_prep.conversion import command_line, numberings
from data_prep.conversion.builder import Builder
from data_prep.conversion.frames import Form, Frame
from data_prep.conversion.units import Filter
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError, listed, warn
from vspw_jax.files import frame_names, pictures
from vspw_jax.files.sources import Source, open_source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.


def read_frames(source: Source, folders: Mapping[str, str], mask_suffixes: Sequence[str]) -> dict[str, list[Frame]]:
    """Frames by split, sorted by name; their files may not exist.

    Args:
      source: has the images and masks.
      folders: {split: its folder below images/ and annotations/}.
      mask_suffixes: possible endings of mask files; the first that occurs is used.

    Raises:
      UserError: no split's images are there.
    """
    marks = {f"images/{folder}/" for folder in folders.values()}
    prefixes = {name[: name.index(mark)] for name in source.sizes for mark in marks if mark in name}
    prefix = min(prefixes, key=len, default="")
    splits = {split: _frames(source, prefix, folder, mask_suffixes) for split, folder in folders.items()}
    splits = {split: frames for split, frames in splits.items() if frames}
    if not splits:
        listed = sorted({name.split("/")[0] for name in source.sizes})[:8]
        raise UserError(
            f"{source.path} does not look like this data set: expected images in {' or '.join(sorted(marks))} "
            f"and their masks in annotations/, found {listed}."
        )
    return splits


def _pictures(source: Source, folder: str) -> dict[str, str]:
    """The pictures in a folder by their names without suffix; warns of other files there."""
    there = [name for name in source.sizes if name.startswith(folder) and "/" not in name.removeprefix(folder)]
    found = [name for name in there if name.lower().endswith(pictures.SUFFIXES)]
    if strange := [name for name in there if not name.lower().endswith(pictures.SUFFIXES)]:
        expected = ", ".join(pictures.SUFFIXES)
        warn(
            f"{len(strange)} files of {source.where(folder)} are left out: {listed(strange, 3)}. "
            f"Expected: images end in {expected}."
        )
    return frame_names.by_stem(found, source.where(folder))


def _stems(source: Source, folder: str, suffix: str) -> set[str]:
    parts = [name.removeprefix(folder) for name in source.sizes if name.startswith(folder) and name.endswith(suffix)]
    return {part.removesuffix(suffix) for part in parts if "/" not in part}


def _frames(source: Source, prefix: str, folder: str, mask_suffixes: Sequence[str]) -> list[Frame]:
    image_folder, mask_folder = f"{prefix}images/{folder}/", f"{prefix}annotations/{folder}/"
    images = _pictures(source, image_folder)
    for suffix in mask_suffixes:
        others = [other for other in mask_suffixes if other != suffix and other.endswith(suffix)]
        masks = {stem for stem in _stems(source, mask_folder, suffix) if not f"{stem}{suffix}".endswith(tuple(others))}
        if masks:
            break
    return [
        Frame(name, name, images.get(name, f"{image_folder}{name}.jpg"), f"{mask_folder}{name}{suffix}")
        for name in sorted(images.keys() | masks)
    ]


def convert(
    builder: type[Builder],
    dataset: str,
    source: Source,
    splits: Mapping[str, Sequence[Frame]],
    output: pathlib.Path | str,
    max_bad: int = 0,
    numbering: str | None = None,
    chosen: Filter | None = None,
    beam: "PipelineOptions | None" = None,
    **options: Any,
) -> list[str]:
    """Converts a data set, unless `output` holds it already; prints the numbering if it had to find it.

    Args:
      builder: the data set's.
      dataset: its name in `label_maps.NUMBERINGS`.
      source: has the frames' files.
      splits: frames by split.
      output: where the records go.
      max_bad: how many bad images may be left out.
      numbering: how the masks number their classes; None finds out.
      chosen: images that it does not pass are left out; None keeps all.
      beam: Beam's PipelineOptions; None converts in this process.
      options: further ones of `builder.Builder`.

    Returns:
      The messages about images left out.
    """
    if numbering is None:
        numbering, why = numberings.detect(dataset, source, [frame for frames in splits.values() for frame in frames])
        print(f"numbering: {numbering} ({why})")
    made = builder(
        splits=splits,
        source=source,
        form=Form(label_maps.of(dataset, numbering)),
        chosen=chosen,
        max_bad=max_bad,
        data_dir=pathlib.Path(output),
        **options,
    )
    bad = command_line.prepare(made, beam)
    if made.filtered:
        print(f"{made.filtered} images left out by --min-mapped={made.chosen.min_mapped:g}")
    return bad


def parser(dataset: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of an image data set."""
    result = command_line.parser(dataset, description)
    command_line.add_mapping(result, dataset)
    return result


def main(parser: argparse.ArgumentParser, convert: Callable[..., list[str]], argv: Sequence[str] | None = None) -> None:
    """Does what a command line asks for; `convert` takes an opened source, the output and options."""
    options, rest = command_line.parsed(parser, argv)
    source = open_source(options.source)
    chosen = command_line.chosen_filter(options)
    beam = command_line.beam_options(options, rest, source)
    bad = convert(source, options.output, options.max_bad, options.numbering, chosen=chosen, beam=beam)
    command_line.report(options.output, bad, chosen.fits)
