"""What images were normalised by for a network, where the file beside its weights names other values than ImageNet's.

Source: huggingface/transformers image_processing_utils.py, whose processors keep them in preprocessor_config.json.
"""

import json
import math
import pathlib

import numpy as np

from vspw_jax.data.transforms import IMAGENET, Normalisation

PREPROCESSOR = "preprocessor_config.json"
CLOSE = 1e-2
"""Levels, of 0 to 255, by which values may differ that are meant to be the same."""


def _numbers(value: object) -> np.ndarray:
    numbers = np.array(value, np.float64)
    if numbers.shape != (3,) or not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not a number for each channel")
    return numbers


def in_preprocessor(path: pathlib.Path) -> Normalisation | None:
    """The values in a preprocessor_config.json beside a checkpoint, or in the folder that is one, in levels 0 to 255.

    None where there is no such file, where it names none, and where they are ImageNet's.
    """
    folder = path if path.is_dir() else path.parent
    try:
        options = json.loads((folder / PREPROCESSOR).read_bytes())
        scale = 1 / float(options.get("rescale_factor", 1 / 255)) if options.get("do_rescale", True) else 1.0
        normalises = options.get("do_normalize", True)
        mean = scale * (_numbers(options["image_mean"]) if normalises else np.zeros(3))
        std = scale * (_numbers(options["image_std"]) if normalises else np.ones(3))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError):
        return None
    found = Normalisation(tuple(mean.tolist()), tuple(std.tolist()))
    if min(found.std) <= 0:
        return None
    pairs = zip((*found.mean, *found.std), (*IMAGENET.mean, *IMAGENET.std), strict=True)
    return None if all(math.isclose(there, here, abs_tol=CLOSE) for there, here in pairs) else found
