"""Converts VSPW, or any data in its layout, to ArrayRecord shards.

    python -m data_prep.vspw --source=VSPW_480p --output=data/vspw/records
    python -m data_prep.vspw --source=VSPW.zip --short-side=480 --output=data/vspw/records

The source holds {train,val,test}.txt (one video name a line) and data/<video>/{origin/*.jpg,mask/*.png}, as the
original and the 480p release do; videos of a test split need no masks. Frames may also be PNG, WebP, BMP, TIFF,
JPEG 2000 or PPM; they come in the order of their numbers. Files whose names start with a dot are passed over, other
files are said. Bytes are kept as they are, unless --short-side=480 asks for VSPW_480p's own rule: height 480, the width
to match, JPEG quality 75, masks to the nearest pixel.
These stop the conversion: a frame without its mask, a mask without its frame, an empty, damaged or cut-off file, a
frame that its EXIF turns, a mask in colours or of another format than PNG, a mask of another size than its frame, a
labelled frame of another size than its video, a label that VSPW lacks. With --max-bad=N up to N such frames are left
out and listed instead. The same command goes on where a conversion was stopped.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_prep.conversion import builder, command_line
from data_prep.conversion.frames import Form
from data_prep.conversion.video_folders import all_frames
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import run_program
from vspw_jax.files.sources import Source, open_source

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions  # Its import takes two seconds.


class Vspw(builder.Builder):
    """VSPW in its own layout; see the module."""


def convert(
    source: Source | pathlib.Path | str,
    output: pathlib.Path | str,
    max_bad: int = 0,
    short_side: int | None = None,
    beam: "PipelineOptions | None" = None,
    **options: Any,
) -> list[str]:
    """Converts VSPW, unless `output` holds it already.

    Args:
      source: folder, .zip or .tar with the split lists and data/.
      output: where the records go.
      max_bad: how many bad frames may be left out.
      short_side: height to resize to, or None to keep every byte.
      beam: Beam's PipelineOptions; None converts in this process.
      options: further ones of `builder.Builder`.

    Returns:
      The messages about frames left out.

    Raises:
      UserError: no such layout, bad frames beyond max_bad, no room, or other data at `output`.
    """
    source = open_source(source)
    frames = all_frames(source)
    form = Form(label_maps.of("vspw", "raw_1_124"), short_side)
    made = Vspw(splits=frames, source=source, form=form, max_bad=max_bad, data_dir=pathlib.Path(output), **options)
    return command_line.prepare(made, beam)


def parser() -> argparse.ArgumentParser:
    """The command line; what it does not know is Beam's."""
    result = command_line.parser("vspw", __doc__)
    result.add_argument("--short-side", type=int, help="resize by VSPW_480p's rule to this height (default: keep)")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options, rest = command_line.parsed(parser(), argv)
    source = open_source(options.source)
    beam = command_line.beam_options(options, rest, source)
    bad = convert(source, options.output, options.max_bad, options.short_side, beam)
    command_line.report(options.output, bad)


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
