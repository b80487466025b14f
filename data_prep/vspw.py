"""Converts VSPW, or any data in its layout, to ArrayRecord shards.

    python -m data_prep.vspw --source=VSPW_480p --output=data/vspw/records
    python -m data_prep.vspw --source=VSPW.zip --short-side=480 --output=data/vspw/records

The source holds {train,val,test}.txt (one video name a line) and data/<video>/{origin/*.jpg,mask/*.png}, as the
original and the 480p release do; videos of a test split need no masks. Files whose names start with a dot are passed
over. JPEG and PNG bytes are kept as they are, unless --short-side=480 asks for VSPW_480p's own rule: height 480, the
width to match, JPEG quality 75, masks to the nearest pixel.
A frame without its mask, a mask without its frame, an empty or cut-off file, a JPEG that cannot be decoded, a mask in
colours, of another size than its frame or with a label that VSPW lacks stops the conversion; with --max-bad=N up to N
of them are left out and listed. The same command goes on where a conversion was stopped.
"""

import pathlib

from data_prep.conversion import builder, command_line
from data_prep.conversion.frames import Form, Frame
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.files import sources

SPLITS = ("train", "val", "test")
"""The videos of all but test must have masks."""


class Vspw(builder.Builder):
    """VSPW in its own layout; see the module."""


def read_splits(source):
    """(prefix, {split: video names}) from the lists that are there; the prefix leads to them within the source."""
    found = [name for name in source.sizes if pathlib.PurePosixPath(name).name in {f"{split}.txt" for split in SPLITS}]
    if not found:
        listed = sorted({name.split("/")[0] for name in source.sizes})[:8]
        raise UserError(
            f"{source.path} does not look like VSPW: expected at least one of {', '.join(f'{s}.txt' for s in SPLITS)} "
            f"and data/<video>/origin/*.jpg, found {listed}."
        )
    prefix = min(found, key=lambda name: name.count("/")).rpartition("/")[0]
    prefix += "/" if prefix else ""
    lists = {split: f"{prefix}{split}.txt" for split in SPLITS}
    return prefix, {split: _read_list(source, name) for split, name in lists.items() if name in source.sizes}


def _read_list(source, name):
    videos = source.read(name).decode().split()
    wrong = [video for video in videos if "/" in video or "\\" in video or video.startswith(".")]
    doubled = sorted({video for video in videos if videos.count(video) > 1}) if len(set(videos)) < len(videos) else []
    if wrong or doubled:
        problem = f"{wrong[0]!r}, which is no video name" if wrong else f"{doubled[0]} twice"
        raise UserError(f"{source.where(name)} lists {problem}. Expected one video name a line.")
    return videos


def list_frames(source, folder, video, files, needs_masks):
    """Frames of a video in order; their files may not exist.

    Args:
      source: one of `sources`.
      folder: the video's, within the source.
      files: names in the folder, such as origin/00000001.jpg.
      needs_masks: whether frames must have masks even if the video has none.
    """
    images, masks = (
        {name[len(kind) : -len(suffix)] for name in files if name.startswith(kind) and name.endswith(suffix)}
        for kind, suffix in (("origin/", ".jpg"), ("mask/", ".png"))
    )
    if not images:
        raise UserError(f"Video {video} has no frames: expected {source.where(folder)}/origin/*.jpg.")
    labelled = needs_masks or masks
    return [
        Frame(video, name, f"{folder}/origin/{name}.jpg", f"{folder}/mask/{name}.png" if labelled else None)
        for name in sorted(images | masks)
    ]


def split_frames(source, prefix, videos, split):
    """Frames of the videos of a split, in the order of the list."""
    files, start = {}, len(f"{prefix}data/")
    for name in source.sizes:
        if name.startswith(f"{prefix}data/"):
            video, _, rest = name[start:].partition("/")
            files.setdefault(video, []).append(rest)
    return [
        frame
        for video in videos
        for frame in list_frames(source, f"{prefix}data/{video}", video, files.get(video, ()), split != "test")
    ]


def read_frames(source):
    """Frames by split, in the order of the lists."""
    prefix, splits = read_splits(source)
    return {split: split_frames(source, prefix, videos, split) for split, videos in splits.items()}


def convert(source, output, max_bad=0, short_side=None, beam=None, **options):
    """Converts VSPW, unless `output` holds it already.

    Args:
      source: folder, .zip or .tar with the split lists and data/, or an opened one of `sources`.
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
    source = sources.open_source(source)
    form = Form("vspw", "raw_1_124", short_side)
    made = Vspw(
        splits=read_frames(source), source=source, form=form, max_bad=max_bad, data_dir=pathlib.Path(output), **options
    )
    return command_line.prepare(made, beam)


def main(argv=None):
    """Command line."""
    parser = command_line.parser("vspw", __doc__)
    parser.add_argument("--short-side", type=int, help="resize by VSPW_480p's rule to this height (default: keep)")
    options, rest = parser.parse_known_args(argv)
    source = sources.open_source(options.source)
    beam = command_line.beam_options(options, rest, source)
    bad = convert(source, options.output, options.max_bad, options.short_side, beam)
    command_line.report(options.output, bad)


if __name__ == "__main__":
    run_program(main)
