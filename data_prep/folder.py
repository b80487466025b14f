"""Converts a user's own labelled images or videos, with their own classes, to ArrayRecord shards.

    python -m data_prep.folder --source=MINE --classes=classes.csv --output=data/mine/records
    python -m vspw_jax.main --config=configs/upernet.py --config.data.records=data/mine/records

The source, a folder, .zip or .tar, holds images/ and masks/ (or annotations/, labels/) of the same layout:

    images/[train|val|test/][<video>/]<frame>.jpg        masks/[train|val|test/][<video>/]<frame>.png

A folder below the split is a video; files directly in the split are single images. Without folders of splits, train.txt
and val.txt may name the videos or images of each, one a line; without these, --val-share of them are drawn. VSPW's
layout (train.txt, val.txt, data/<video>/{origin,mask}) is taken too.

classes.csv has a line for each class, after a first line with the columns' names: name, id (the value of its pixels in
masks), and colour (#rrggbb) or r, g, b. JSON does as well: a list of such rows, or {"id": "name", ...}. Masks are PNGs
of ids (grey or palette) or of colours; the conversion finds out which, and prints it. Values or colours that mean no
class are named with --void=0,#000000; 255 is void where no class has it.

The classes go with the records: the network then has as many outputs, and reports, pictures and exports their names and
colours. Any labelled frame that cannot be used stops the conversion; see data_prep.vspw.
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_prep.conversion import builder, class_files, command_line, video_folders
from data_prep.conversion.class_files import Meaning, Row
from data_prep.conversion.frames import Form, Frame
from data_prep.conversion.labelled_folders import Layout
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files import mask_png
from vspw_jax.files.sources import Source, open_source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

DATASET = "folder"
SAMPLED = 32
"""Masks read to find out what they hold."""
VAL_SHARE = 0.2


class Folder(builder.Builder):
    """A user's own data set; see the module."""


def read_splits(
    source: Source, mask_suffix: str = "", single_images: bool = False, val_share: float = VAL_SHARE, seed: int = 0
) -> dict[str, list[Frame]]:
    """Frames by split, in VSPW's layout or in that of `labelled_folders`."""
    if any(name.split("/")[-1] == "train.txt" for name in source.sizes) and any(
        "/origin/" in name for name in source.sizes
    ):
        prefix, splits = video_folders.read_splits(source)
        return {s: video_folders.split_frames(source, prefix, videos, s) for s, videos in splits.items()}
    return Layout(source, mask_suffix, single_images).splits(val_share, seed)


def _sampled_masks(source: Source, frames: Sequence[Frame]) -> Iterator[bytes]:
    masks = [frame.mask for frame in frames if frame.mask in source.sizes]
    for mask in masks[:: max(len(masks) // SAMPLED, 1)][:SAMPLED]:
        yield source.read(str(mask))


def meaning_of_masks(
    source: Source, frames: Sequence[Frame], rows: Sequence[Row], void: Sequence[str]
) -> tuple[Meaning, str]:
    """What masks hold, found from some of them, and a sentence that says it.

    Ids are meant where all masks hold ids that the list has. Colours are, where they do not and the list has colours.
    """
    ids = class_files.of_ids(DATASET, rows, void)
    strange = set[int]()
    for png in _sampled_masks(source, frames):
        try:
            strange |= {int(v) for v in set(mask_png.decode(png).ravel().tolist()) if not ids.labels.allowed[v]}
        except UserError as error:
            if any(row.colour for row in rows):
                return class_files.of_colours(DATASET, rows, void), "Masks hold colours."
            if "holds colours" in str(error):
                raise UserError(
                    f"The masks of {source.path} hold colours, and the list of classes has none. Add a column colour "
                    "(#rrggbb), or r, g and b."
                ) from error
    if strange and all(row.colour for row in rows):
        return class_files.of_colours(DATASET, rows, void), "Masks hold colours, in a palette."
    return ids, "Masks hold ids."


def convert(
    source: Source | pathlib.Path | str,
    classes: pathlib.Path | str,
    output: pathlib.Path | str,
    max_bad: int = 0,
    void: Sequence[str] = (),
    layout: dict[str, Any] | None = None,
    beam: "PipelineOptions | None" = None,
    **options: Any,
) -> list[str]:
    """Converts a user's data, unless `output` holds it already; prints what the masks hold.

    Args:
      source: folder, .zip or .tar; see the module.
      classes: file that lists them.
      output: where the records go.
      max_bad: how many bad frames may be left out.
      void: ids, or colours as "#rrggbb", of pixels without a class.
      layout: options of `read_splits`.
      beam: Beam's PipelineOptions; None converts in this process.
      options: further ones of `builder.Builder`.

    Returns:
      The messages about frames left out.

    Raises:
      UserError: no such layout or list, bad frames beyond max_bad, no room, or other data at `output`.
    """
    source, rows = open_source(source), class_files.read(classes)
    splits = read_splits(source, **(layout or {}))
    frames = [frame for own in splits.values() for frame in own]
    meaning, found = meaning_of_masks(source, frames, rows, void)
    print(found)
    form = Form(meaning.labels, mask_colours=meaning.mask_colours)
    made = Folder(splits=splits, source=source, form=form, max_bad=max_bad, data_dir=pathlib.Path(output), **options)
    return command_line.prepare(made, beam)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    result = command_line.parser(DATASET, __doc__)
    result.add_argument("--classes", required=True, metavar="FILE", help="CSV or JSON that lists the classes")
    result.add_argument("--void", default="", help="ids or colours (#rrggbb) without a class, such as 0,#000000")
    result.add_argument("--mask-suffix", default="", help="after the frame's name in its mask's: _mask for a_mask.png")
    result.add_argument(
        "--single-images", action="store_true", help="files of a folder are images by themselves, not a video's frames"
    )
    result.add_argument(
        "--val-share", type=float, default=VAL_SHARE, help="of the videos, where no split is stated (default 0.2)"
    )
    result.add_argument("--seed", type=int, default=0, help="of drawing that share (default 0)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options, rest = parser().parse_known_args(argv)
    source = open_source(options.source)
    layout = {name: getattr(options, name) for name in ("mask_suffix", "single_images", "val_share", "seed")}
    beam = command_line.beam_options(options, rest, source)
    void = [text.strip() for text in options.void.split(",") if text.strip()]
    bad = convert(source, options.classes, options.output, options.max_bad, void, layout, beam)
    command_line.report(options.output, bad)


if __name__ == "__main__":
    run_program(main)
