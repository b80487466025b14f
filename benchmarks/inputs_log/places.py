"""Files of a case's folder that inputs are put in the place of, and files that inputs are made from."""

import pathlib

import numpy as np

from tests.inputs import masks, torch_zips
from vspw_jax.interop import checkpoint_file


def _first(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    return min(folder.glob(pattern))


def image(folder: pathlib.Path) -> pathlib.Path:
    """A frame of the first training video."""
    return _first(folder, "video/data/0_*/origin/00000003.jpg")


def mask(folder: pathlib.Path) -> pathlib.Path:
    """Its mask."""
    return _first(folder, "video/data/0_*/mask/00000003.png")


def prediction(folder: pathlib.Path) -> pathlib.Path:
    """A frame of the predictions."""
    return _first(folder, "masks/*/00000003.png")


def write_predictions(folder: pathlib.Path, split: str = "val") -> None:
    """Predictions of a split, of class 0 alone."""
    for name in (folder / "video" / f"{split}.txt").read_text().split():
        (folder / "masks" / name).mkdir(parents=True)
        for path in (folder / "video" / "data" / name / "origin").iterdir():
            (folder / "masks" / name / f"{path.stem}.png").write_bytes(masks.png(np.zeros((48, 64), int)))


def tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Those of net.pth."""
    return {name: tensor.read() for name, tensor in checkpoint_file.read(folder / "net.pth").tensors.items()}


def write_nan(folder: pathlib.Path) -> None:
    """The same with a NaN in one, as nan.pth."""
    found = tensors(folder)
    last = [name for name, array in found.items() if array.dtype == np.float32][-1]
    found[last] = np.full_like(found[last], np.nan)
    torch_zips.write(folder / "nan.pth", {"state_dict": found})
