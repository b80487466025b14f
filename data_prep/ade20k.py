"""Converts ADE20K, as released for scene parsing, to ArrayRecord shards; its labels become VSPW's when read.

    python -m data_prep.ade20k --source=ADEChallengeData2016 --output=data/ade20k/records

The source, a folder, .zip or .tar, holds images/{training,validation}/*.jpg and the masks as
annotations/{training,validation}/*.png; the splits become train and val. Masks come as released (1..150, 0 other) or
reduced by one (0..149, 255 void). The conversion finds out which from the values, and prints it. Where the values do
not decide, it stops and asks for --numbering=.
Filter and bad files: as for data_prep.coco_stuff.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from data_prep.conversion import builder, image_folders
from vspw_jax.console.errors import run_program
from vspw_jax.files.sources import Source, open_source

FOLDERS = {"train": "training", "val": "validation"}


class Ade20k(builder.Builder):
    """ADE20K's scene parsing release; see the module."""


def convert(
    source: Source | pathlib.Path | str,
    output: pathlib.Path | str,
    max_bad: int = 0,
    numbering: str | None = None,
    **options: Any,
) -> list[str]:
    """Converts ADE20K, unless `output` holds it already; see `image_folders.convert`.

    Args:
      source: folder, .zip or .tar.
      options: further ones of `image_folders.convert`.

    Raises:
      UserError: no such layout, an unclear numbering, bad images beyond max_bad, no room, other data at `output`.
    """
    source = open_source(source)
    splits = image_folders.read_frames(source, FOLDERS, (".png",))
    return image_folders.convert(Ade20k, "ade20k", source, splits, output, max_bad, numbering, **options)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    return image_folders.parser("ade20k", __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    image_folders.main(parser(), convert, argv)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
