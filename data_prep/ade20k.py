"""Converts ADE20K, as released for scene parsing, to ArrayRecord shards; its labels become VSPW's when read.

    python -m data_prep.ade20k --source=ADEChallengeData2016 --output=data/ade20k/records

The source, a folder, .zip or .tar, holds images/{training,validation}/*.jpg and the masks as
annotations/{training,validation}/*.png; the splits become train and val. Masks come as released (1..150, 0 other) or
reduced by one (0..149, 255 void). Which it is is found from the values, and printed; where they do not decide, the
conversion stops and --numbering= settles it.
Filter and bad files: as for data_prep.coco_stuff.
"""

from data_prep.conversion import builder, image_folders
from vspw_jax.console.errors import run_program
from vspw_jax.files import sources

FOLDERS = {"train": "training", "val": "validation"}


class Ade20k(builder.Builder):
    """ADE20K's scene parsing release; see the module."""


def convert(source, output, max_bad=0, numbering=None, **options):
    """Converts ADE20K, unless `output` holds it already; see `image_folders.convert`.

    Args:
      source: folder, .zip or .tar, or an opened one of `sources`.

    Raises:
      UserError: no such layout, a numbering that cannot be told, bad images beyond max_bad, no room, other data.
    """
    source = sources.open_source(source)
    splits = image_folders.read_frames(source, FOLDERS, (".png",))
    return image_folders.convert(Ade20k, "ade20k", source, splits, output, max_bad, numbering, **options)


def main(argv=None):
    """Command line."""
    image_folders.main("ade20k", __doc__, convert, argv)


if __name__ == "__main__":
    run_program(main)
