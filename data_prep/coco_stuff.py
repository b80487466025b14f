"""Converts COCO-Stuff 164k to ArrayRecord shards; its labels become VSPW's when read.

    python -m data_prep.coco_stuff --source=COCO_STUFF_DIR --output=data/coco_stuff/records

The source, a folder, .zip or .tar, holds images/{train2017,val2017}/*.jpg and the masks as
annotations/{train2017,val2017}/*.png; the splits become train and val. Masks come in three numberings: the published
pixelmaps (0..181, 255 void), mmsegmentation's train ids (0..170, 255 void; *_labelTrainIds.png, taken where there are
no others or with --numbering=trainid_0_170), and ids from 1 (0 void). The conversion finds out which from the values,
and prints it. Where the values do not decide, it stops and asks for --numbering=.
Every image is kept: the reader of the records decides which ones map well enough to VSPW's classes. --min-mapped=0.8
leaves the others out of the records for good. JPEG and PNG bytes are kept as they are; bad files are handled as by
data_prep.vspw.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from data_prep.conversion import builder, image_folders
from vspw_jax.console.errors import run_program
from vspw_jax.files.sources import Source, open_source

FOLDERS = {"train": "train2017", "val": "val2017"}
TRAIN_IDS = "trainid_0_170"


class CocoStuff(builder.Builder):
    """COCO-Stuff 164k; see the module."""


def convert(
    source: Source | pathlib.Path | str,
    output: pathlib.Path | str,
    max_bad: int = 0,
    numbering: str | None = None,
    **options: Any,
) -> list[str]:
    """Converts COCO-Stuff, unless `output` holds it already; see `image_folders.convert`.

    Args:
      source: folder, .zip or .tar.
      options: further ones of `image_folders.convert`.

    Raises:
      UserError: no such layout, an unclear numbering, bad images beyond max_bad, no room, other data at `output`.
    """
    source = open_source(source)
    suffixes = (".png", "_labelTrainIds.png")
    splits = image_folders.read_frames(source, FOLDERS, suffixes[::-1] if numbering == TRAIN_IDS else suffixes)
    return image_folders.convert(CocoStuff, "coco_stuff", source, splits, output, max_bad, numbering, **options)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    return image_folders.parser("coco_stuff", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    image_folders.main(parser(), convert, argv)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
