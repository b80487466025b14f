"""What the command lines of the converters share: their options, Beam's, and what they print."""

import argparse
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import tensorflow_datasets as tfds

from data_prep.conversion import runners, units
from data_prep.conversion.builder import Builder
from vspw_jax.buckets import addresses, arguments
from vspw_jax.classes import label_maps
from vspw_jax.console import ranges
from vspw_jax.console.errors import UserError, counted, listed, warn
from vspw_jax.data import class_pixels, records
from vspw_jax.files.sources import Source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.

SMALL_BYTES = 1 << 29
"""Sources up to this size are converted in this process: Beam's worker processes take some 8 seconds to start."""

NUMBERS = {"max_bad": ranges.whole(0), "workers": ranges.COUNT, "short_side": ranges.SIDE}
"""Options that are numbers, of which some converters lack some."""
READ = ("source", "classes", "sbd", "annotations")
"""Options of converters that name files to read."""

PUBLISHED_SHARE = 0.8
"""arXiv 2306.03508, section 2.2."""


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """An argument parser with the options that all converters have."""
    result = argparse.ArgumentParser(
        prog=f"python -m data_prep.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Further options are Beam's, such as --project=... --region=... for --runner=DataflowRunner.",
    )
    result.add_argument("--source", required=True, help="a folder, .zip or .tar in the data set's layout")
    result.add_argument("--output", required=True, help="folder for the records; give it to --config.data.records")
    result.add_argument("--max-bad", type=int, default=0, help="bad frames to leave out before giving up (default 0)")
    result.add_argument(
        "--workers", type=int, help="processes on this machine (default: one a core; 1 for a small set)"
    )
    result.add_argument("--runner", help="a Beam runner in place of processes on this machine: DataflowRunner, ...")
    return result


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments that are left: Beam's. What options name in buckets is on this disk then.

    Raises:
      UserError: a number that makes no sense, or a bucket that cannot be used.
    """
    options, rest = parser.parse_known_args(argv)
    ranges.check_options(options, NUMBERS)
    if options.runner:
        _check_seen_by_workers(options)
    arguments.on_disk(options, read=READ, records=("output",))
    return options, rest


def _check_seen_by_workers(options: argparse.Namespace) -> None:
    """Raises UserError where a path is in a bucket: its copy would be on this machine's disk alone."""
    for name in (*READ, "output"):
        if addresses.is_address(getattr(options, name, None)):
            raise UserError(
                f"--runner={options.runner} needs an --{name} that all its workers see as a folder: name one on a disk "
                "that they mount. Without --runner this machine copies from the bucket, converts, and sends."
            )


def add_mapping(parser: argparse.ArgumentParser, dataset: str) -> None:
    """Adds the options of a data set whose classes are mapped to VSPW's."""
    parser.add_argument(
        "--numbering",
        choices=tuple(label_maps.NUMBERINGS[dataset]),
        help="how its masks number the classes (default: found from their values)",
    )
    parser.add_argument(
        "--fits", default=",".join(label_maps.FITS), help="fits of the class table that count (default all three)"
    )
    parser.add_argument(
        "--min-mapped",
        type=float,
        default=0.0,
        help="leave out images of which a smaller share maps to VSPW (default 0)",
    )
    parser.add_argument(
        "--denominator",
        choices=label_maps.DENOMINATORS,
        default="all",
        help="the pixels of which --min-mapped is a share (default all)",
    )


def chosen_filter(options: argparse.Namespace) -> units.Filter:
    """The filter that the options of `add_mapping` ask for; UserError where a value is not allowed."""
    chosen = units.Filter(tuple(filter(None, options.fits.split(","))), options.min_mapped, options.denominator)
    label_maps.check_fits(chosen.fits)
    class_pixels.check_share(chosen.min_mapped)
    return chosen


def beam_options(options: argparse.Namespace, rest: list[str], source: Source) -> "PipelineOptions | None":
    """Beam's options for a conversion, or None where this process does it.

    Args:
      options: what `parser` parsed.
      rest: the arguments that it did not know: Beam's.
      source: its size decides how many processes work on it by default.

    Raises:
      UserError: arguments that Beam does not know either.
    """
    workers = options.workers or (1 if sum(source.sizes.values()) < SMALL_BYTES else os.cpu_count())
    if not options.runner and workers == 1 and not rest:
        return None
    if options.runner:
        return runners.pipeline_options([f"--runner={options.runner}", *rest])
    return runners.pipeline_options(runners.local_arguments(workers) + rest)


def prepare(builder: Builder, beam: "PipelineOptions | None") -> list[str]:
    """Runs a builder's conversion and returns the messages about frames left out."""
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=beam))
    return builder.bad


def report(output: pathlib.Path | str, bad: Iterable[str], fits: Sequence[str] = label_maps.FITS) -> None:
    """Prints which frames were left out, and what is at `output`: counts, and the shares that map to VSPW."""
    for message in bad:
        print(f"left out: {message}")
    metadata = records.read_metadata(output)
    labels = label_maps.from_metadata(metadata)
    for split, videos in metadata["videos"].items():
        frames = sum(count for _, count in videos)
        if labels.numbering == label_maps.OWN:
            print(f"{split}: {len(videos)} videos and single images, {frames} frames")
            shown_classes(labels, class_pixels.load(records.find(output), split, frames), split)
            continue
        if labels.dataset == "vspw":
            print(f"{split}: {counted(len(videos), 'video')}, {counted(frames, 'frame')}")
            continue
        pixels_N256 = class_pixels.load(records.find(output), split, frames)
        kept = class_pixels.count_kept(pixels_N256, labels.lookup(fits), labels.labelled, PUBLISHED_SHARE)
        print(f"{split}: {kept}")


def shown_classes(labels: label_maps.LabelMap, pixels_N256: scipy.sparse.csr_array, split: str) -> None:
    """Prints each class's share of a split's labelled pixels, and warns of those that never occur."""
    pixels_V = np.asarray(pixels_N256.astype(np.int64).sum(axis=0)).ravel()
    if not pixels_V.any():
        return
    share = {source.name: 100 * pixels_V[source.value] / pixels_V.sum() for source in labels.sources}
    for name, value in sorted(share.items(), key=lambda item: -item[1]):
        print(f"  {value:6.2f} %  {name}")
    print(f"  {100 - sum(share.values()):6.2f} %  no class")
    if missing := [name for name, value in share.items() if not value]:
        warn(f"No mask of split {split} has {listed(missing)}. Does the list of classes say how masks name them?")
