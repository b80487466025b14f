"""PyTorch's libraries of networks, for tests that are skipped without them."""

import pytest


def library(name):
    """transformers, timm or torchvision; where it or PyTorch is not installed, the test or its file is skipped."""
    pytest.importorskip("torch")
    from benchmarks import torch_libraries  # Imports PyTorch.

    try:
        return torch_libraries.load(name)
    except ImportError:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
