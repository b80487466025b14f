"""A recipe and the fields of it that flags name, looked at before the flags are parsed, for messages that help."""

import argparse
import difflib
import pathlib
import re
import runpy
from collections.abc import Mapping, Sequence
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


def check_flags(argv: Sequence[str]) -> None:
    """Raises UserError where --config names no recipe, or a --config.field=value no field of it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    flag = parser.parse_known_args(argv)[0].config
    if not flag:
        return
    path, *size = flag.split(":", 1)
    if not pathlib.Path(path).is_file():
        recipes = sorted(str(recipe) for recipe in pathlib.Path("configs").glob("*.py"))
        raise UserError(f"There is no recipe {path}: expected a Python file, such as {', '.join(recipes) or 'X.py'}.")
    fields = set(flatten(runpy.run_path(path)["get_config"](*size)))
    sections = {".".join(field.split(".")[:end]) for field in fields for end in range(1, field.count(".") + 1)}
    for name in re.findall(r"^--?(?:no)?config\.([^=\s]+)", "\n".join(argv), re.MULTILINE):
        if name not in fields | sections:
            raise UserError(f"{flag} has no field {name!r}. {_hint(name, fields)}")


def _hint(name: str, fields: set[str]) -> str:
    """The fields that were probably meant."""
    near = difflib.get_close_matches(name, fields, n=3) or [
        field for field in sorted(fields) if field.split(".")[-1] == name.split(".")[-1]
    ]
    return f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(sorted(fields))}."
