"""Writes drawn, exactly labelled video in VSPW's layout, or drawn images in COCO-Stuff's.

    python -m data_prep.generate --output=data/generated
    python -m data_prep.generate --output=data/generated_coco --layout=coco_stuff

VSPW: {train,val,test}.txt, label_num_dic_final.json, data/<video>/{origin/%08d.jpg,mask/%08d.png}; the masks hold raw
ids, and test videos have no masks.
COCO-Stuff: images/<split>/%012d.jpg and annotations/<split>/%012d.png, ids 0..181, 255 void.
The same options always write the same files.
"""

import argparse
import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from data_prep import coco_stuff, vspw
from data_prep.drawing import colours, disturbances, layouts
from vspw_jax.buckets import arguments
from vspw_jax.console import ranges
from vspw_jax.console.errors import UserError, choose, differing, run_program
from vspw_jax.data import mixture, records
from vspw_jax.files import ownership
from vspw_jax.files.whole_files import whole_file
from vspw_jax.files.writable import check_folder
from vspw_jax.parallel import processes

VERSION = 3
"""Of the drawing; another one draws other pictures from the same options. 1 had shared colours alone, and no note."""
NOTE = "drawing.json"
"""Beside the drawn files, and in the folder of their records: version and options."""
UNNOTED_DRAWING = {"version": 1}
"""What files without a note are of."""
UNNOTED = {"test": 0, "disturbances": "none"}
"""Values of options that were no options once: a note leaves them out."""


def generate(output: pathlib.Path | str, write: Callable[[pathlib.Path], object]) -> None:
    """Calls write(folder) on a folder beside `output` and renames it to `output` when it is whole.

    Raises:
      UserError: `output` exists.
    """
    output = pathlib.Path(output)
    if output.exists():
        raise UserError(f"{output} exists. Delete it, or choose another --output.")
    aside = output.with_name(output.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    aside.rename(output)


def _draw(
    output: pathlib.Path | str,
    options: argparse.Namespace | ConfigDict,
    write: Callable[[pathlib.Path], object],
) -> None:
    """As `generate`, with a note of what was drawn."""

    def noted(folder: pathlib.Path) -> None:
        write(folder)
        (folder / NOTE).write_text(json.dumps(_note(options), indent=2) + "\n")

    generate(output, noted)


def _draw_vspw(output: pathlib.Path | str, options: argparse.Namespace | ConfigDict) -> None:
    videos = {split: getattr(options, split, 0) for split in SPLITS}
    videos = {split: count for split, count in videos.items() if count}
    size = (options.frames, options.height, options.width)
    rest = (options.seed, options.colours, options.train_frames)
    disturbed = getattr(options, "disturbances", "none")
    _draw(output, options, lambda folder: layouts.write_vspw(folder, videos, *size, *rest, disturbed))


def _draw_coco_stuff(output: pathlib.Path | str, options: argparse.Namespace | ConfigDict) -> None:
    images = {"train2017": options.train, "val2017": options.val}
    size = (options.height, options.width)
    _draw(
        output, options, lambda folder: layouts.write_coco_stuff(folder, images, *size, options.seed, options.colours)
    )


SPLITS = ("train", "val", "test")

LAYOUTS: dict[str, tuple[Callable, Callable]] = {
    "vspw": (_draw_vspw, vspw.convert),
    "coco_stuff": (_draw_coco_stuff, functools.partial(coco_stuff.convert, numbering="pixelmap_0_181")),
}
"""How data is drawn and how it is converted, by its layout."""

CHOICES: dict[str, Mapping[str, object]] = {
    "colours": colours.COLOURS,
    "disturbances": disturbances.DISTURBANCES,
}
"""What options with a few values may be."""


def _note(options: argparse.Namespace | ConfigDict) -> dict[str, Any]:
    """What decides a drawing, as its `NOTE` has it."""
    fields = vars(options) if isinstance(options, argparse.Namespace) else options.to_dict()
    decides = {name: value for name, value in fields.items() if name not in ("output", "source", "records")}
    return {"version": VERSION, **{name: value for name, value in decides.items() if UNNOTED.get(name) != value}}


def _noted(folder: pathlib.Path) -> dict[str, Any] | None:
    """What a folder's note says was drawn; None where it has none."""
    try:
        return json.loads((folder / NOTE).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"version": "damaged note"}


def _check_drawing(options: ConfigDict) -> None:
    """Raises UserError where the drawn data that is there, files or records, is not what a recipe would draw."""
    source, converted = pathlib.Path(options.source), pathlib.Path(options.records)
    found = {source: _noted(source) or UNNOTED_DRAWING} if source.exists() else {}
    if noted := _noted(converted):
        found[converted] = noted
    if not found:
        raise UserError(
            f"{converted} does not say how its video was drawn, and {source} is gone: expected {converted / NOTE}. "
            f"Delete {converted}, and the same command draws it anew. To keep it, rename the folder and name it with "
            "--config.data.records=DIR."
        )
    for folder, drawn in found.items():
        if lines := differing(drawn, _note(options)):
            raise UserError(
                f"{folder} was drawn otherwise than this recipe asks for:\n{lines}\nDelete {source} and "
                f"{converted}, and the same command draws them anew. To keep them, for a run that was trained on them, "
                "rename the folder of the records and name it with --config.data.records=DIR."
            )
    if not noted:  # Records of an earlier version.
        _write_note(converted, found[source])


def for_recipe(config: ConfigDict) -> None:
    """Draws and converts the data sets that a recipe draws itself, unless they are there or replaced.

    Args:
      config: whole; `generate` of `config.data` and of members of its mixture has the options.
    """
    with processes.first_alone("data"):
        for data in (config.data, *config.data.mixture.values()):
            if mixture.is_drawn(data):
                if not records.exist(data.records):
                    _check_split(data)
                    _make(data.generate)
                _check_drawing(data.generate)


def _check_split(data: ConfigDict) -> None:
    """Raises UserError where a recipe evaluates a split that it does not draw."""
    drawn = [split for split in SPLITS if data.generate.get(split)]
    if "eval_split" in data and data.eval_split not in drawn:
        raise UserError(
            f"data.eval_split is {data.eval_split!r}: expected one of {', '.join(drawn)}, which this recipe draws."
        )


def _make(options: ConfigDict) -> None:
    """Draws and converts a data set, unless another program that runs now does it: that one is waited for."""
    draw, convert = choose(LAYOUTS, options.layout, "data.generate.layout")
    for name in CHOICES.keys() & options.keys():
        choose(CHOICES[name], options[name], f"data.generate.{name}")
    source = pathlib.Path(options.source)
    with ownership.owned(source.parent, "data.generate.source", waits=True) as held:
        if not source.exists():
            draw(source, options)
        held.check()
        # First, so that no records are without it.
        _write_note(pathlib.Path(options.records), _noted(source) or UNNOTED_DRAWING)
        convert(source, options.records)


def _write_note(folder: pathlib.Path, drawn: dict[str, Any]) -> None:
    """Writes a folder's note, where none can be written a UserError."""
    check_folder(folder, "data.generate.records")
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / NOTE) as partial:
        partial.write_text(json.dumps(drawn, indent=2) + "\n")


def _check_draws(options: argparse.Namespace) -> None:
    """Raises UserError where nothing would be drawn."""
    if not (options.train or options.val or options.test):
        raise UserError("--train, --val and --test are all 0, so there is nothing to draw: expected --train=60, say.")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--output", required=True, help="folder to write; must not exist")
    result.add_argument("--layout", choices=tuple(LAYOUTS), default="vspw", help="default vspw")
    result.add_argument("--train", type=int, default=60, help="training videos or images (default 60)")
    result.add_argument("--val", type=int, default=9, help="validation videos or images (default 9)")
    result.add_argument("--test", type=int, default=0, help="test videos, without masks (default 0; vspw only)")
    result.add_argument("--frames", type=int, default=20, help="frames in each video (default 20)")
    result.add_argument(
        "--train-frames", type=int, default=0, help="frames in each training video (default 0: as --frames; vspw only)"
    )
    result.add_argument("--height", type=int, default=120, help="default 120")
    result.add_argument("--width", type=int, default=192, help="default 192")
    result.add_argument(
        "--colours",
        choices=tuple(CHOICES["colours"]),
        default="typical",
        help="of a class: its own, as in the world (default), or shared by all classes, which is harder",
    )
    result.add_argument(
        "--disturbances",
        choices=tuple(CHOICES["disturbances"]),
        default="none",
        help="none (default), or drawn: dark, overexposed and blurred frames, things that pass close by, light that "
        "drifts, so that some frames need their neighbours (vspw only)",
    )
    result.add_argument("--seed", type=int, default=0, help="default 0")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    arguments.on_disk(options, folders=("output",))
    ranges.check_options(options, ranges.DRAWING)
    of_videos = ("test", "frames", "train_frames", "disturbances")
    ignored = [ranges.flag(name) for name in of_videos if getattr(options, name) != parser().get_default(name)]
    if options.layout != "vspw" and ignored:
        raise UserError(f"--layout={options.layout} does not read {', '.join(ignored)}: it has images, no test split.")
    _check_draws(options)
    draw, _ = LAYOUTS[options.layout]
    with ownership.owned(pathlib.Path(options.output).absolute().parent, "--output=DIR", waits=True):
        draw(options.output, options)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run_program(main, takes_addresses=True)
