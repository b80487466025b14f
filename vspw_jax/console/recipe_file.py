"""A recipe and the fields of it that flags name, looked at before the flags are parsed, for messages that help."""

import argparse
import contextlib
import difflib
import inspect
import pathlib
import re
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """The fields of nested dicts by dotted path: {"model.encoder.dim": 96}."""
    flat = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict | ConfigDict):
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def sections(config: ConfigDict, prefix: str = "") -> list[str]:
    """The dotted paths of nested dicts: ["model", "model.encoder"]."""
    found = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            found += [f"{prefix}{name}", *sections(value, f"{prefix}{name}.")]
    return found


def load(path: str, size: Sequence[str]) -> ConfigDict:
    """What `get_config` of a recipe gives; `size` has what follows the colon in --config, if anything.

    Raises:
      UserError: there is no such file, or it is no recipe.
    """
    if not pathlib.Path(path).is_file():
        recipes = sorted(str(recipe) for recipe in pathlib.Path("configs").glob("*.py"))
        raise UserError(f"There is no recipe {path}: expected a Python file, such as {', '.join(recipes) or 'X.py'}.")
    with _naming(path):
        get_config = runpy.run_path(path).get("get_config")
    if not callable(get_config):
        raise UserError(f'{path} is no recipe: it has no function get_config. Expected def get_config(size="full").')
    try:
        inspect.signature(get_config).bind(*size)
    except TypeError as error:
        asked = f"--config={':'.join((path, *size))} asks for get_config({', '.join(map(repr, size))})"
        raise UserError(f'{asked}, but {error}. Expected def get_config(size="full") in {path}.') from error
    with _naming(path):
        config = get_config(*size)
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config of {path} returns a {type(config).__name__}: expected a ConfigDict.")
    return config


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Raises UserError for what a recipe's code raises; it names the recipe's line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f"{path}, line {lines[-1]}," if lines else path
        raise UserError(f"The recipe {where} cannot be used ({type(error).__name__}): {_words(error)}") from error


def _words(error: BaseException) -> str:
    """What an exception says. A KeyError puts its message in quotes; ML Collections raises others around one."""
    if error.args and isinstance(error.args[0], KeyError):
        error = error.args[0]
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def check_flags(argv: Sequence[str]) -> None:
    """Raises UserError where --config names no recipe, or a --config.field=value no field of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    flag = parser.parse_known_args(argv)[0].config
    if not flag:
        return
    path, *size = flag.split(":", 1)
    fields = set(flatten(load(path, size)))
    parents = {".".join(field.split(".")[:end]) for field in fields for end in range(1, field.count(".") + 1)}
    for name in re.findall(r"^--?(?:no)?config\.([^=\s]+)", "\n".join(argv), re.MULTILINE):
        if name not in fields | parents:
            raise UserError(f"{flag} has no field {name!r}. {_hint(name, fields)}")


def _hint(name: str, fields: set[str]) -> str:
    """The fields that were probably meant."""
    near = difflib.get_close_matches(name, fields, n=3) or [
        field for field in sorted(fields) if field.split(".")[-1] == name.split(".")[-1]
    ]
    return f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(sorted(fields))}."
