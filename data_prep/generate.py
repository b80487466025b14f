"""Writes drawn, exactly labelled video in VSPW's layout, or drawn images in COCO-Stuff's.

    python -m data_prep.generate --output=data/generated
    python -m data_prep.generate --output=data/generated_coco --layout=coco_stuff

VSPW: {train,val,test}.txt, label_num_dic_final.json, data/<video>/{origin/%08d.jpg,mask/%08d.png}; the masks hold raw
ids, and test videos have no masks.
COCO-Stuff: images/<split>/%012d.jpg and annotations/<split>/%012d.png, ids 0..181, 255 void.
The same options always write the same files.
"""

import argparse
import pathlib
import shutil
from collections.abc import Callable, Sequence

from data_prep.drawing.layouts import write_coco_stuff, write_vspw
from vspw_jax.console.errors import UserError, run_program


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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--output", required=True, help="folder to write; must not exist")
    result.add_argument("--layout", choices=("vspw", "coco_stuff"), default="vspw", help="default vspw")
    result.add_argument("--train", type=int, default=60, help="training videos or images (default 60)")
    result.add_argument("--val", type=int, default=9, help="validation videos or images (default 9)")
    result.add_argument("--test", type=int, default=0, help="test videos, without masks (default 0; vspw only)")
    result.add_argument("--frames", type=int, default=20, help="frames in each video (default 20)")
    result.add_argument("--height", type=int, default=120, help="default 120")
    result.add_argument("--width", type=int, default=192, help="default 192")
    result.add_argument("--seed", type=int, default=0, help="default 0")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser().parse_args(argv)
    size = (options.height, options.width)
    if options.layout == "vspw":
        videos = {split: getattr(options, split) for split in ("train", "val", "test") if getattr(options, split)}
        generate(options.output, lambda folder: write_vspw(folder, videos, options.frames, *size, options.seed))
    else:
        images = {"train2017": options.train, "val2017": options.val}
        generate(options.output, lambda folder: write_coco_stuff(folder, images, *size, options.seed))
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run_program(main)
