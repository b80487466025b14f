"""Converts Pascal VOC 2012, with the extra annotations of SBD where they are given, to ArrayRecord shards.

    python -m data_prep.pascal_voc --source=VOCdevkit/VOC2012 --sbd=benchmark_RELEASE --output=data/pascal_voc/records
    python -m vspw_jax.main --config=configs/deeplabv3.py --config.data.records=data/pascal_voc/records

The source, a folder, .zip or .tar, is VOCtrainval_11-May-2012.tar as published: JPEGImages/, SegmentationClass/ and
ImageSets/Segmentation/{train,val}.txt. SBD is a folder, .zip or .tar that holds cls/*.mat, train.txt and val.txt
(benchmark.tgz must be unpacked).

val is VOC's, 1,449 images. train is VOC's 1,464; with SBD these and all images of SBD's two lists that are in neither
list of VOC: 10,582, sorted by name. SBD's own train.txt holds images of VOC's val, so it is not used as it is. Images
of VOC's train have VOC's masks, whose borders of objects are void; SBD's masks have no borders.
Without --sbd it is plain VOC. If ImageSets/Segmentation has test.txt, its images become the split test, without masks.
The 21 classes, background among them, and their colours go with the records. Bad files are handled as by
data_prep.vspw.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_prep.conversion import builder, command_line, matlab_masks, video_folders
from data_prep.conversion.frames import Form, Frame
from data_prep.conversion.joined_sources import Joined
from vspw_jax.classes import published
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files.sources import Source, open_source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

DATASET = "pascal_voc"
VOC, SBD = "voc", "sbd"
"""Words of the two sources."""
LISTS = "ImageSets/Segmentation/"


class PascalVoc(builder.Builder):
    """Pascal VOC 2012; see the module."""


def _folder_of(source: Source, name: str, expected: str) -> str:
    """The only folder, with / at its end, in which there is a file of that name."""
    found = sorted({path.removesuffix(name) for path in source.sizes if f"/{path}".endswith(f"/{name}")})
    if len(found) != 1:
        where = f", found it in {', '.join(source.where(folder) for folder in found)}" if found else ""
        raise UserError(f"{source.path} does not look like this data set: expected one {name}{where}. {expected}")
    return found[0]


def _voc_frames(source: Source) -> dict[str, list[Frame]]:
    """VOC's own frames by split."""
    expected = "Give the folder VOCdevkit/VOC2012, or the published .tar of that year alone."
    top = _folder_of(source, f"{LISTS}train.txt", expected)
    splits = {split: f"{top}{LISTS}{split}.txt" for split in ("train", "val", "test")}
    lists = {split: video_folders.read_list(source, name) for split, name in splits.items() if name in source.sizes}
    video_folders.warn_of_shared(source, lists)
    image, mask = f"{VOC}/{top}JPEGImages", f"{VOC}/{top}SegmentationClass"
    return {
        split: [_frame(image, name, None if split == "test" else f"{mask}/{name}.png") for name in sorted(names)]
        for split, names in lists.items()
    }


def _frame(folder: str, name: str, mask: str | None) -> Frame:
    return Frame(name, name, f"{folder}/{name}.jpg", mask)


def _sbd_frames(source: Source, images: str, known: set[str]) -> list[Frame]:
    """Frames of SBD's two lists that VOC's do not have; their images are VOC's."""
    expected = "Give the folder of SBD that holds cls/, train.txt and val.txt."
    lists = [name for name in source.sizes if name.split("/")[-1] == "train.txt"]
    tops = sorted({name.removesuffix("train.txt") for name in lists})
    tops = [top for top in tops if any(name.startswith(f"{top}cls/") for name in source.sizes)]
    if len(tops) != 1 or f"{tops[0]}val.txt" not in source.sizes:
        raise UserError(f"--sbd={source.path} does not look like SBD's benchmark_RELEASE. {expected}")
    names = {name for part in ("train", "val") for name in video_folders.read_list(source, f"{tops[0]}{part}.txt")}
    return [_frame(images, name, f"{SBD}/{tops[0]}cls/{name}{matlab_masks.SUFFIX}") for name in sorted(names - known)]


def read_splits(voc: Source, sbd: Source | None = None) -> dict[str, list[Frame]]:
    """Frames by split, named as in the joined sources; see the module.

    Raises:
      UserError: either is in another layout.
    """
    splits = _voc_frames(voc)
    if sbd is None:
        return splits
    if not {"train", "val"} <= splits.keys():
        raise UserError(f"{voc.path} lacks {LISTS}val.txt: without it images of val could not be kept out of train.")
    known = {frame.name for split in ("train", "val", "test") for frame in splits.get(split, ())}
    images = splits["train"][0].image.rpartition("/")[0]
    splits["train"] = sorted([*splits["train"], *_sbd_frames(sbd, images, known)], key=lambda frame: frame.name)
    return splits


def convert(
    source: Source | pathlib.Path | str,
    output: pathlib.Path | str,
    sbd: Source | pathlib.Path | str | None = None,
    max_bad: int = 0,
    beam: "PipelineOptions | None" = None,
    **options: Any,
) -> list[str]:
    """Converts Pascal VOC, unless `output` holds it already.

    Args:
      source: VOC: folder, .zip or .tar.
      sbd: the same of SBD; None for plain VOC.
      output: where the records go.
      max_bad: how many bad images may be left out.
      beam: Beam's PipelineOptions; None converts in this process.
      options: further ones of `builder.Builder`.

    Returns:
      The messages about images left out.

    Raises:
      UserError: no such layout, bad images beyond max_bad, no room, or other data at `output`.
    """
    voc, extra = open_source(source), None if sbd is None else open_source(sbd)
    joined = Joined({VOC: voc} if extra is None else {VOC: voc, SBD: extra})
    form = Form(published.label_map(DATASET))
    made = PascalVoc(
        splits=read_splits(voc, extra),
        source=joined,
        form=form,
        max_bad=max_bad,
        data_dir=pathlib.Path(output),
        **options,
    )
    return command_line.prepare(made, beam)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    result = command_line.parser(DATASET, __doc__)
    result.add_argument("--sbd", metavar="PATH", help="SBD's benchmark_RELEASE: a folder, .zip or .tar (default: none)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options, rest = command_line.parsed(parser(), argv)
    source = open_source(options.source)
    beam = command_line.beam_options(options, rest, source)
    bad = convert(source, options.output, options.sbd, options.max_bad, beam)
    command_line.report(options.output, bad)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
