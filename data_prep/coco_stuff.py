"""Converts COCO-Stuff 164k to ArrayRecord shards; its labels become VSPW's when read.

    python -m data_prep.coco_stuff --source=COCO_STUFF_DIR --output=data/coco_stuff/records

The source, a folder, .zip or .tar, holds images/{train2017,val2017}/*.jpg and the masks as
annotations/{train2017,val2017}/*.png; the splits become train and val. Masks come in three numberings: the published
pixelmaps (0..181, 255 void), mmsegmentation's train ids (0..170, 255 void; *_labelTrainIds.png, taken where there are
no others or with --numbering=trainid_0_170), and ids from 1 (0 void). Which it is is found from the values, and
printed; where they do not decide, the conversion stops and --numbering= settles it.
Every image is kept: which ones map well enough to VSPW's classes is asked when they are read. --min-mapped=0.8 leaves
the others out of the records for good. JPEG and PNG bytes are kept as they are, and bad files handled as by
data_prep.vspw.
"""

from data_prep.conversion import builder, image_folders
from vspw_jax.console.errors import run_program
from vspw_jax.files import sources

FOLDERS = {"train": "train2017", "val": "val2017"}
TRAIN_IDS = "trainid_0_170"


class CocoStuff(builder.Builder):
    """COCO-Stuff 164k; see the module."""


def convert(source, output, max_bad=0, numbering=None, **options):
    """Converts COCO-Stuff, unless `output` holds it already; see `image_folders.convert`.

    Args:
      source: folder, .zip or .tar, or an opened one of `sources`.

    Raises:
      UserError: no such layout, a numbering that cannot be told, bad images beyond max_bad, no room, other data.
    """
    source = sources.open_source(source)
    suffixes = (".png", "_labelTrainIds.png")
    splits = image_folders.read_frames(source, FOLDERS, suffixes[::-1] if numbering == TRAIN_IDS else suffixes)
    return image_folders.convert(CocoStuff, "coco_stuff", source, splits, output, max_bad, numbering, **options)


def main(argv=None):
    """Command line."""
    image_folders.main("coco_stuff", __doc__, convert, argv)


if __name__ == "__main__":
    run_program(main)
