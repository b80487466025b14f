"""Weights of classes that do not stand in the recipe: `loss.segmentation.class_weight_from`.

    inverse_log    of the class's share of the training pixels: rare classes weigh more
    FILE           JSON: a list of weights, or an object of weights by the names of the classes

As for the length of a run (`length.py`), below the functions here nothing reads the field: a config comes back whose
`class_weight` has the numbers.
Shapes: K classes.
"""

import copy
import json
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from vspw_jax.checkpoints import run_identity
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError, listed
from vspw_jax.data import mixture, views

INVERSE_LOG = "inverse_log"
OFFSET = 1.05
"""ENet has 1.02, by which a class of a hundredth of the pixels weighs twice as much; poles then spread over all."""


def of_data(config: ConfigDict, members: Sequence[mixture.Member]) -> ConfigDict:
    """A run's whole config with the weights that its data, or a file, gives.

    Raises:
      UserError: no such file, or one that does not fit the classes.
    """
    source = _source(config)
    if not source:
        return config
    classes = config.model.num_classes
    if source != INVERSE_LOG:
        return _with_weights(config, of_file(source, members[0].classes, classes))
    return _with_weights(config, inverse_log(shares_of_pixels(members, views.frames_shown(config.data), classes)))


def check_file(config: ConfigDict) -> None:
    """Raises UserError where the weights of a whole config are in a file that is not there, or is no JSON."""
    source = _source(config)
    if source and source != INVERSE_LOG:
        _read(source)


def of_workdir(config: ConfigDict, workdir: pathlib.Path) -> ConfigDict:
    """The whole config with the weights of the workdir's run, whatever data is at hand now; without a run as it is."""
    weights = run_identity.class_weight_of(workdir) if _source(config) else ()
    return _with_weights(config, weights) if weights else config


def _source(config: ConfigDict) -> str:
    return config.loss.get("segmentation", {}).get("class_weight_from", "")


def _with_weights(config: ConfigDict, weights: Iterable[float]) -> ConfigDict:
    """Rounded, as processors differ in the last digit of a logarithm, and a run goes on with the same weights alone."""
    config = copy.deepcopy(config).unlock()
    config.loss.segmentation.class_weight = tuple(round(float(weight), 6) for weight in weights)
    return config.lock()


def inverse_log(shares: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    """Weights that fall with a class's share of the pixels, with mean 1 over all pixels.

    Source: ENet (arXiv 1606.02147), section 5.2.
    """
    weights = 1 / np.log(OFFSET + shares)
    return weights / (weights * shares).sum()


def shares_of_pixels(members: Sequence[mixture.Member], num_frames: int, num_classes: int) -> Float[np.ndarray, " K"]:
    """Each class's share of the labelled pixels: every data set counts as often as it is drawn, and in it every frame.

    Args:
      num_frames: of a clip.
      num_classes: K, of the network.
    """
    shares = np.zeros(num_classes)
    for member in members:
        pixels = member.frames.pixels_K
        if pixels.any():
            (classes,) = np.nonzero(pixels)
            numbers = member.part.lookup[classes] if member.part else classes
            shares[numbers] += member.draws(num_frames) * pixels[classes] / pixels.sum()
    return shares / shares.sum()


def _read(path: pathlib.Path | str) -> Any:
    try:
        return json.loads(pathlib.Path(path).read_text())
    except FileNotFoundError:
        raise UserError(
            f"loss.segmentation.class_weight_from is {str(path)!r}: expected {INVERSE_LOG}, or a file; there is none "
            "of that name."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({str(error).splitlines()[0]}).") from error


def of_file(path: pathlib.Path | str, classes: ClassList, num_classes: int) -> list[float]:
    """The weights of a file, by the numbers of the classes.

    Raises:
      UserError: it cannot be read, or has not one finite weight of 0 or more for each class.
    """
    found = _read(path)
    if isinstance(found, dict):
        unknown, missing = found.keys() - set(classes.names), [name for name in classes.names if name not in found]
        if unknown or missing:
            raise UserError(
                f"{path} has weights of {len(found)} classes: expected one for each of the {len(classes)}. It lacks "
                f"{listed(missing) or 'none'}, and has {listed(sorted(unknown)) or 'none'} that the data does not have."
            )
        found = [found[name] for name in classes.names]
    is_weight = lambda value: type(value) in (int, float) and math.isfinite(value) and value >= 0
    if not isinstance(found, list) or len(found) != num_classes or not all(map(is_weight, found)) or not any(found):
        raise UserError(
            f"{path} holds {str(found)[:80]}: expected {num_classes} numbers of 0 or more, one for each class in the "
            "order of their ids, or an object with the names of the classes."
        )
    return found
