"""PyTorch's libraries of networks, for tests that are skipped without them."""

import importlib.util

import pytest

NEEDS = {"transformers": ("transformers",), "timm": ("timm", "torchvision"), "torchvision": ("torchvision",)}


def library(name):
    """transformers, timm or torchvision; where it or PyTorch is not installed, the test or its file is skipped."""
    pytest.importorskip("torch")
    for needed in NEEDS[name]:
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed", allow_module_level=True)
    from benchmarks import torch_libraries  # Imports PyTorch.

    return torch_libraries.load(name)
