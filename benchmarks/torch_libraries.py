"""transformers, timm and torchvision beside the CPU build of PyTorch.

torchvision's wheels are made for the CUDA build. Beside the CPU build its operators do not load, and importing it, as
timm and transformers do, fails where it says which shapes two of them give. Declared without code, as here, they let it
be imported. Calls of them fail still; networks of classification and segmentation have none.

    pip install "transformers>=5.23,<6"
    pip install --no-deps "timm>=1.0.31,<1.1" torchvision==0.28.0

Without `--no-deps` the CUDA build of PyTorch, some gigabytes, comes with them.
"""

import importlib
import importlib.util
import warnings
from types import ModuleType

import torch

OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
"""Declarations last as long as this object."""


def _make_torchvision_importable() -> None:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in ("nms", "qnms"):
            OPERATORS.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def load(name: str) -> ModuleType:
    """A library by name, imported without its warnings.

    Raises:
      ImportError: it is not installed.
    """
    if importlib.util.find_spec("torchvision"):
        _make_torchvision_importable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)
