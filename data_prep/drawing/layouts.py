"""Drawn clips as files: video in VSPW's layout, single images in COCO-Stuff's."""

import json
import pathlib
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_prep.drawing import scenes
from vspw_jax.classes import vspw
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


def vspw_lookup() -> UInt8[np.ndarray, "256"]:
    """Raw VSPW ids by drawn label: classes 1..124; 0, "others", for pixels of no class."""
    lookup = np.zeros(256, np.uint8)
    lookup[: len(scenes.CLASSES)] = [vspw.classes().names.index(name) + 1 for name in scenes.CLASSES]
    return lookup


def coco_stuff_lookup() -> UInt8[np.ndarray, "256"]:
    """COCO-Stuff pixel values 0..181 by drawn label; 255 void."""
    value = {row["name"]: int(row["pixelmap_value_0_181"]) for row in vspw.table("coco_stuff_classes")}
    lookup = np.full(256, 255, np.uint8)
    lookup[: len(scenes.CLASSES)] = [value.get(COCO_STUFF_NAMES.get(name, ""), 255) for name in scenes.CLASSES]
    return lookup


def _write_frame(
    image: UInt8[np.ndarray, "H W 3"],
    label: UInt8[np.ndarray, "H W"],
    image_path: pathlib.Path,
    mask_path: pathlib.Path | None,
) -> None:
    # cv2.imwrite says nothing about a full disk.
    image_path.write_bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    if mask_path:
        mask = Image.fromarray(label)
        mask.putpalette(vspw.classes().palette.tobytes())
        mask.save(mask_path)


def write_vspw(
    folder: pathlib.Path,
    videos: Mapping[str, int],
    num_frames: int,
    height: int,
    width: int,
    seed: int,
    colours: str = "typical",
    train_frames: int = 0,
    disturbances: str = "none",
) -> None:
    """Writes clips in VSPW's layout; `videos` has their number by split.

    Those of split "train" have `train_frames` frames where that is not 0, all others `num_frames`.
    """
    numbers = iter(range(sum(videos.values())))
    lookup = vspw_lookup()
    for split, count in videos.items():
        length = train_frames if split == "train" and train_frames else num_frames
        names = []
        for _ in progress(range(count), f"drawing {split}", "video"):
            number = next(numbers)
            names.append(f"{number}_drawn-{seed}")
            origin, mask = folder / "data" / names[-1] / "origin", folder / "data" / names[-1] / "mask"
            origin.mkdir(parents=True)
            if split != "test":
                mask.mkdir()
            clip = scenes.clip(seed, number, length, height, width, colours, disturbances)
            for frame, (image, label) in enumerate(zip(*clip, strict=True), start=1):
                mask_path = mask / f"{frame:08d}.png" if split != "test" else None
                _write_frame(image, lookup[label], origin / f"{frame:08d}.jpg", mask_path)
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    ids = {name: str(number) for number, name in enumerate(("others", *vspw.classes().names))}
    (folder / "label_num_dic_final.json").write_text(json.dumps(ids))


def write_coco_stuff(
    folder: pathlib.Path, images: Mapping[str, int], height: int, width: int, seed: int, colours: str = "typical"
) -> None:
    """Writes single images in COCO-Stuff's layout; `images` has their number by split."""
    numbers = iter(range(sum(images.values())))
    lookup = coco_stuff_lookup()
    for split, count in images.items():
        image_folder, mask_folder = folder / "images" / split, folder / "annotations" / split
        image_folder.mkdir(parents=True)
        mask_folder.mkdir(parents=True)
        for _ in progress(range(count), f"drawing {split}", "image"):
            number = next(numbers)
            image, label = scenes.clip(seed, number, 1, height, width, colours)
            name = f"{number + 1:012d}"
            _write_frame(image[0], lookup[label[0]], image_folder / f"{name}.jpg", mask_folder / f"{name}.png")
