"""Writes drawn, exactly labelled video in VSPW's layout, or drawn images in COCO-Stuff's.

    python -m data_prep.generate --output=data/generated
    python -m data_prep.generate --output=data/generated_coco --layout=coco_stuff

VSPW: {train,val,test}.txt, label_num_dic_final.json, data/<video>/{origin/%08d.jpg,mask/%08d.png}, raw ids in the
masks; test videos have no masks.
COCO-Stuff: images/<split>/%012d.jpg and annotations/<split>/%012d.png, ids 0..181, 255 void.
The same options always write the same files.
"""

import argparse
import json
import pathlib
import shutil

import cv2
import numpy as np
from PIL import Image

from data_prep.drawing import scenes
from vspw_jax.classes import vspw
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.console.progress import progress

COCO_STUFF_NAMES = {
    "ball": "sports ball",
    "building": "building-other",
    "car": "car",
    "floor": "floor-tile",
    "grass": "grass",
    "mountain": "mountain",
    "person": "person",
    "road": "road",
    "sand": "sand",
    "sea": "sea",
    "ship_or_boat": "boat",
    "sky": "sky-other",
    "tree": "tree",
    "wall": "wall-concrete",
}
"""COCO-Stuff's names of the drawn classes; it has none for a painting, which becomes void."""


def vspw_lookup():
    """Raw VSPW ids by generated label: classes 1..124; pixels of no class 0, "others"."""
    lookup = np.zeros(256, np.uint8)
    lookup[: len(scenes.CLASSES)] = [vspw.names().index(name) + 1 for name in scenes.CLASSES]
    return lookup


def coco_stuff_lookup():
    """COCO-Stuff pixel values 0..181 by generated label; 255 void."""
    value = {row["name"]: int(row["pixelmap_value_0_181"]) for row in vspw.table("coco_stuff_classes")}
    lookup = np.full(256, 255, np.uint8)
    lookup[: len(scenes.CLASSES)] = [value.get(COCO_STUFF_NAMES.get(name), 255) for name in scenes.CLASSES]
    return lookup


def _write_frame(image, label, image_path, mask_path):
    # cv2.imwrite keeps quiet about a full disk.
    image_path.write_bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1])
    if mask_path:
        mask = Image.fromarray(label)
        mask.putpalette(vspw.palette().tobytes())
        mask.save(mask_path)


def write_vspw(folder, videos, num_frames, height, width, seed):
    """Writes clips in VSPW's layout; `videos` counts them by split."""
    numbers = iter(range(sum(videos.values())))
    lookup = vspw_lookup()
    for split, count in videos.items():
        names = []
        for _ in progress(range(count), f"drawing {split}", "video"):
            number = next(numbers)
            names.append(f"{number}_drawn-{seed}")
            origin, mask = folder / "data" / names[-1] / "origin", folder / "data" / names[-1] / "mask"
            origin.mkdir(parents=True)
            if split != "test":
                mask.mkdir()
            frames = zip(*scenes.clip(seed, number, num_frames, height, width), strict=True)
            for frame, (image, label) in enumerate(frames, start=1):
                mask_path = mask / f"{frame:08d}.png" if split != "test" else None
                _write_frame(image, lookup[label], origin / f"{frame:08d}.jpg", mask_path)
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    ids = {name: str(number) for number, name in enumerate(("others", *vspw.names()))}
    (folder / "label_num_dic_final.json").write_text(json.dumps(ids))


def write_coco_stuff(folder, images, height, width, seed):
    """Writes single images in COCO-Stuff's layout; `images` counts them by split."""
    numbers = iter(range(sum(images.values())))
    lookup = coco_stuff_lookup()
    for split, count in images.items():
        image_folder, mask_folder = folder / "images" / split, folder / "annotations" / split
        image_folder.mkdir(parents=True)
        mask_folder.mkdir(parents=True)
        for _ in progress(range(count), f"drawing {split}", "image"):
            number = next(numbers)
            image, label = scenes.clip(seed, number, 1, height, width)
            name = f"{number + 1:012d}"
            _write_frame(image[0], lookup[label[0]], image_folder / f"{name}.jpg", mask_folder / f"{name}.png")


def generate(output, write):
    """Calls write(folder) on a folder aside, which takes the name `output` when whole.

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


def parser():
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m data_prep.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--output", required=True, help="folder to write; must not exist")
    result.add_argument("--layout", choices=("vspw", "coco_stuff"), default="vspw", help="default vspw")
    result.add_argument("--train", type=int, default=60, help="training videos or images (default 60)")
    result.add_argument("--val", type=int, default=9, help="validation videos or images (default 9)")
    result.add_argument("--test", type=int, default=0, help="test videos, without masks (default 0; vspw only)")
    result.add_argument("--frames", type=int, default=20, help="frames a video (default 20)")
    result.add_argument("--height", type=int, default=120, help="default 120")
    result.add_argument("--width", type=int, default=192, help="default 192")
    result.add_argument("--seed", type=int, default=0, help="default 0")
    return result


def main(argv=None):
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
