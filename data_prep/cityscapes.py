"""Converts Cityscapes, images or the sequences around them, to ArrayRecord shards.

    python -m data_prep.cityscapes --source=cityscapes --output=data/cityscapes/records
    python -m data_prep.cityscapes --source=cityscapes --labels=coarse --output=data/cityscapes_coarse/records
    python -m data_prep.cityscapes --source=cityscapes --clips --output=data/cityscapes_clips/records

The source, a folder, .zip or .tar, holds the published folders: leftImg8bit/<split>/<city>/*_leftImg8bit.png, and
gtFine/<split>/<city>/*_gtFine_labelIds.png or gtCoarse/ of the same layout. Where they are in archives of their own,
--annotations names that of the labels: --source=leftImg8bit_trainvaltest.zip --annotations=gtFine_trainvaltest.zip.

Fine labels have the splits train, val and test; the masks of test are not public, so its records have none. Coarse
labels have train_extra, train and val. Labels are the published ids (0..33); 19 of them are classes, all others void.
--clips takes leftImg8bit_sequence/ in place of leftImg8bit/: of each labelled frame the 19 before it and the 10 after
it make a video of 30, in which that frame alone has a mask. Frames count through in the cities of long recordings, so
their numbers are those around the label's, not 0 to 29.
Images of a split without any label are left out, and under --clips those that no label is near; a warning counts them.
The classes and their colours go with the records. Bad files are handled as by data_prep.vspw.
"""

import argparse
import collections
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from data_prep.conversion import builder, command_line
from data_prep.conversion.frames import Form, Frame
from data_prep.conversion.joined_sources import Joined
from vspw_jax.classes import published
from vspw_jax.console.errors import UserError, choose, listed, run_program, warn
from vspw_jax.files.sources import Source, open_source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

DATASET = "cityscapes"
IMAGES, LABELS = "images", "labels"
"""Words of the two sources."""
KINDS = {"fine": ("gtFine", ("train", "val", "test")), "coarse": ("gtCoarse", ("train", "train_extra", "val"))}
"""Of labels: their folder, which is in the files' names too, and their splits."""
UNLABELLED = ("test",)
"""Splits whose published masks hold no class."""
BEFORE, AFTER = 19, 10
"""Frames of a sequence beside the labelled one. Source: cityscapes-dataset.com, "dataset overview"; see
mcordts/cityscapesScripts#22 for the cities whose recordings are long."""
NAME = re.compile(r"(?P<split>\w+)/(?P<city>[\w-]+)/(?P<stem>(?P=city)_\d{6}_(?P<number>\d{6}))_(?P<what>\w+)\.png$")


class Cityscapes(builder.Builder):
    """Cityscapes; see the module."""


class Place(NamedTuple):
    """A labelled frame: its split, city, name (city_sequence_frame), and the label's file."""

    split: str
    city: str
    stem: str
    file: str

    def frame(self, number: int) -> str:
        """The name of a frame of the same recording."""
        return f"{self.stem[:-6]}{number:06d}"


def _below(source: Source, folder: str) -> dict[str, str]:
    """Files below the folder of that name, by their names there."""
    pattern = re.compile(rf"(?:.*?/)?{folder}/(.+)")
    found = ((pattern.fullmatch(name), name) for name in source.sizes)
    return {match[1]: name for match, name in found if match}


def _places(labels: Source, kind: str) -> Iterator[Place]:
    """The labelled frames, in order."""
    folder, splits = KINDS[kind]
    for name, file in sorted(_below(labels, folder).items()):
        found = NAME.fullmatch(name)
        if found and found["what"] == f"{folder}_labelIds" and found["split"] in splits:
            yield Place(found["split"], found["city"], found["stem"], file)


def _without_labels(there: Iterable[str], labelled: Iterable[Place], kind: str) -> Iterator[Place]:
    """The images of the labels' splits, and of test, that no label is of; the conversion misses their masks."""
    folder, splits = KINDS[kind]
    known = {(place.split, place.stem) for place in labelled}
    wanted = {split for split, _ in known} | (set(UNLABELLED) & set(splits))
    for name in there:
        found = NAME.fullmatch(name)
        if found and found["split"] in wanted and (found["split"], found["stem"]) not in known:
            split, city, stem = found.group("split", "city", "stem")
            yield Place(split, city, stem, f"{folder}/{split}/{city}/{stem}_{folder}_labelIds.png")


def _frames(place: Place, images: dict[str, str], folder: str, clips: bool) -> Iterator[Frame]:
    """The frames of a labelled one's video; alone it is its own."""
    labelled = int(place.stem[-6:])
    mask = None if place.split in UNLABELLED else f"{LABELS}/{place.file}"
    for number in range(labelled - BEFORE, labelled + AFTER + 1) if clips else (labelled,):
        name = f"{place.split}/{place.city}/{place.frame(number)}_leftImg8bit.png"
        image = f"{IMAGES}/{images.get(name, f'{folder}/{name}')}"
        yield Frame(place.stem, f"{number:06d}" if clips else place.stem, image, mask if number == labelled else None)


def _warn_of_left_out(images: dict[str, str], splits: dict[str, list[Frame]], folder: str, clips: bool) -> None:
    """Says how many images of each split are not taken; `folder` is that of the labels."""
    taken = {frame.image for frames in splits.values() for frame in frames}
    found = ((NAME.fullmatch(name), f"{IMAGES}/{file}" in taken) for name, file in images.items())
    left = collections.Counter(match["split"] for match, is_taken in found if match and not is_taken)
    if left:
        why = f"they belong to no clip of a label in {folder}" if clips else f"their splits have no labels in {folder}"
        warn(f"Images are left out, as {why}: {', '.join(f'{left[split]} of {split}' for split in sorted(left))}.")


def _unlike(source: Source, expected: str) -> UserError:
    top = listed(sorted({name.split("/")[0] for name in source.sizes}))
    return UserError(
        f"{source.path} does not look like Cityscapes: expected {expected}, found {top or 'nothing'}. "
        "Labels in an archive of their own are named with --annotations=PATH."
    )


def read_splits(images: Source, labels: Source, kind: str = "fine", clips: bool = False) -> dict[str, list[Frame]]:
    """Frames by split, named as in the joined sources; their files may not exist. Warns of images that are not taken.

    Raises:
      UserError: an unknown kind of labels, or no such layout.
    """
    choose(KINDS, kind, "--labels")
    folder, (of_labels, _) = "leftImg8bit_sequence" if clips else "leftImg8bit", KINDS[kind]
    there, places = _below(images, folder), list(_places(labels, kind))
    if not there:
        raise _unlike(images, f"{folder}/<split>/<city>/*_leftImg8bit.png")
    if not places:
        raise _unlike(labels, f"{of_labels}/<split>/<city>/*_{of_labels}_labelIds.png")
    if not clips:
        places = sorted([*places, *_without_labels(there, places, kind)])
    splits: dict[str, list[Frame]] = {}
    for place in places:
        splits.setdefault(place.split, []).extend(_frames(place, there, folder, clips))
    _warn_of_left_out(there, splits, of_labels, clips)
    return splits


def convert(
    source: Source | pathlib.Path | str,
    output: pathlib.Path | str,
    annotations: Source | pathlib.Path | str | None = None,
    labels: str = "fine",
    clips: bool = False,
    max_bad: int = 0,
    beam: "PipelineOptions | None" = None,
    **options: Any,
) -> list[str]:
    """Converts Cityscapes, unless `output` holds it already.

    Args:
      source: folder, .zip or .tar.
      annotations: the same of the labels; None where they are in the source.
      labels: "fine" or "coarse".
      clips: whether the frames around the labelled ones are taken too.
      output: where the records go.
      max_bad: how many bad frames may be left out.
      beam: Beam's PipelineOptions; None converts in this process.
      options: further ones of `builder.Builder`.

    Returns:
      The messages about frames left out.

    Raises:
      UserError: no such layout, bad frames beyond max_bad, no room, or other data at `output`.
    """
    images = open_source(source)
    of_labels = images if annotations is None else open_source(annotations)
    splits = read_splits(images, of_labels, labels, clips)
    made = Cityscapes(
        splits=splits,
        source=Joined({IMAGES: images, LABELS: of_labels}),
        form=Form(published.label_map(DATASET)),
        max_bad=max_bad,
        data_dir=pathlib.Path(output),
        **options,
    )
    return command_line.prepare(made, beam)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    result = command_line.parser(DATASET, __doc__)
    result.add_argument("--annotations", metavar="PATH", help="the labels, where they are not in --source")
    result.add_argument("--labels", default="fine", choices=tuple(KINDS), help="which labels (default fine)")
    result.add_argument("--clips", action="store_true", help="videos of 30 frames, of which the 20th has a mask")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options, rest = command_line.parsed(parser(), argv)
    source = open_source(options.source)
    beam = command_line.beam_options(options, rest, source)
    annotations, kind = options.annotations, options.labels
    bad = convert(source, options.output, annotations, kind, options.clips, options.max_bad, beam)
    command_line.report(options.output, bad)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
