"""Converts a user's own labelled images or videos, with their own classes, to ArrayRecord shards.

    python -m data_prep.folder --source=MINE --classes=classes.csv --output=data/mine/records
    python -m vspw_jax.main --config=configs/upernet.py --config.data.records=data/mine/records

The source, a folder, .zip or .tar, holds images/ and masks/ (or annotations/, labels/) of the same layout:

    images/[train|val|test/][<video>/]<frame>.jpg        masks/[train|val|test/][<video>/]<frame>.png

or [train|val|test]/images/ beside masks/. A folder below the split is a video; files directly in the split are single
images. Without folders of splits, train.txt and val.txt may name the videos or images of each, one a line; without
these, --val-share of them are drawn. VSPW's layout (train.txt, val.txt, data/<video>/{origin,mask}) is taken too.

classes.csv has a line for each class, after a first line with the columns' names: name, id (the value of its pixels in
masks), and colour (#rrggbb) or r, g, b. JSON does as well: a list of such rows, or {"id": "name", ...}. Masks are PNGs
of ids (grey or palette) or of colours; the conversion finds out which, and prints it. Values or colours that mean no
class are named with --void=0,#000000; 255 is void where no class has it. Where ids and colours both fit, and mean
different classes, the conversion asks for --masks-hold=ids or colours.

The classes go with the records: the network then has as many outputs, and reports and pictures their names and colours.
Any labelled frame that cannot be used stops the conversion; see data_prep.vspw.
"""

import argparse
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_prep.conversion import builder, class_files, command_line, labelled_folders, masks_hold, video_folders
from data_prep.conversion.frames import Form, Frame
from vspw_jax.console.errors import UserError, choose, run_program
from vspw_jax.files.sources import Source, open_source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

DATASET = "folder"
AUTO = "auto"
"""Of --masks-hold: found from the masks."""


class Folder(builder.Builder):
    """A user's own data set; see the module."""


def read_splits(source: Source, options: labelled_folders.Options) -> dict[str, list[Frame]]:
    """Frames by split, in VSPW's layout or in those of `labelled_folders`.

    Raises:
      UserError: neither layout, or options that VSPW's does not have.
    """
    names = [name.split("/") for name in source.sizes]
    if not any(parts[-2:-1] == ["origin"] for parts in names) or not any(p[-1] == "train.txt" for p in names):
        return labelled_folders.read_splits(source, options)
    if options != labelled_folders.DEFAULT:
        raise UserError(
            f"{source.path} is in VSPW's layout, whose lists and folders say all: leave out --mask-suffix, "
            "--single-images, --val-share and --seed."
        )
    return video_folders.all_frames(source)


def _sampled_masks(source: Source, splits: dict[str, list[Frame]]) -> Iterator[bytes]:
    masks = [frame.mask for frames in splits.values() for frame in frames if frame.mask in source.sizes]
    for mask in masks[:: max(len(masks) // masks_hold.SAMPLED, 1)][: masks_hold.SAMPLED]:
        yield source.read(str(mask))


def convert(
    source: Source | pathlib.Path | str,
    classes: pathlib.Path | str,
    output: pathlib.Path | str,
    max_bad: int = 0,
    void: Sequence[str] = (),
    hold: str = AUTO,
    layout: labelled_folders.Options = labelled_folders.DEFAULT,
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
      hold: what masks hold, "ids" or "colours"; AUTO finds out.
      beam: Beam's PipelineOptions; None converts in this process.
      options: further ones of `builder.Builder`.

    Returns:
      The messages about frames left out.

    Raises:
      UserError: no such layout or list, masks that leave open what they hold, bad frames beyond max_bad, no room, or
        other data at `output`.
    """
    source, rows = open_source(source), class_files.read(classes)
    splits = read_splits(source, layout)
    if hold == AUTO:
        meaning, found = masks_hold.judged(_sampled_masks(source, splits), DATASET, rows, void)
        print(found)
    else:
        meaning = choose(masks_hold.STATED, hold, "--masks-hold")(DATASET, rows, void)
    form = Form(meaning.labels, mask_colours=meaning.mask_colours)
    made = Folder(splits=splits, source=source, form=form, max_bad=max_bad, data_dir=pathlib.Path(output), **options)
    return command_line.prepare(made, beam)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    result = command_line.parser(DATASET, __doc__)
    default = labelled_folders.DEFAULT
    result.add_argument("--classes", required=True, metavar="FILE", help="CSV or JSON that lists the classes")
    result.add_argument("--void", default="", help="ids or colours (#rrggbb) without a class, such as 0,#000000")
    result.add_argument(
        "--masks-hold", default=AUTO, choices=(AUTO, *masks_hold.STATED), help="ids or colours (default: found)"
    )
    result.add_argument("--mask-suffix", default="", help="after the frame's name in its mask's: _mask for a_mask.png")
    result.add_argument(
        "--single-images", action="store_true", help="files of a folder are images by themselves, not a video's frames"
    )
    result.add_argument(
        "--val-share", type=float, default=default.val_share, help="of the videos, where no split is stated (0.2)"
    )
    result.add_argument("--seed", type=int, default=default.seed, help="of drawing that share (default 0)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options, rest = command_line.parsed(parser(), argv)
    source = open_source(options.source)
    layout = labelled_folders.Options(options.mask_suffix, options.single_images, options.val_share, options.seed)
    beam = command_line.beam_options(options, rest, source)
    void = [text.strip() for text in options.void.split(",") if text.strip()]
    bad = convert(source, options.classes, options.output, options.max_bad, void, options.masks_hold, layout, beam)
    command_line.report(options.output, bad)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
