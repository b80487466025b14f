"""A command line that names a checkpoint and no recipe: the recipe is configs/released.py with the file's network."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import released
from vspw_jax.console.recipe_file import flatten
from vspw_jax.interop import checkpoint_file, sizes
from vspw_jax.models import segmenter

RECIPE = pathlib.Path(released.__file__)


def added(argv: list[str]) -> list[str]:
    """The command line; where it names a file of weights and no recipe, this recipe is added to a copy."""
    names = lambda pattern: any(re.match(pattern, word) for word in argv[1:])
    if names(r"--?config(=|$)") or not names(r"--?config\.init_from(=|$)"):
        return argv
    return [argv[0], f"--config={RECIPE}", *argv[1:]]


def is_named(config_flag: str) -> bool:
    """Whether --config names this recipe."""
    return pathlib.Path(config_flag.partition(":")[0]).resolve() == RECIPE.resolve()


def fitted(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """The recipe with the network that `config.init_from` holds; says what it is.

    Args:
      overrides: values of fields that flags set, by dotted name; they hold for the file's network too.

    Raises:
      UserError: the file holds no whole network of a known kind.
    """
    model, assumed = sizes.read(checkpoint_file.read(config.init_from, config.init_from_key))
    result = released.with_network(config, model, segmenter.decoder_of(model).SEGMENTATION_LOSS)
    fields = flatten(result)
    result.update_from_flattened_dict({name: value for name, value in overrides.items() if name in fields})
    said = [sentence for sentence in assumed if "in training" not in sentence]
    print(
        f"{config.init_from} holds a network of {model.encoder.name} and {model.decoder.name} with {model.num_classes} "
        f"classes.\nAssumed, as its tensors do not say: {'; '.join(said) or 'nothing'}."
    )
    return result
