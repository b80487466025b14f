"""The names of a checkpoint's classes: those that it holds beside its tensors, or that a config.json beside it has.

Sources: open-mmlab/mmengine mmengine/runner/runner.py (meta.dataset_meta); mmsegmentation 0.x (meta.CLASSES);
huggingface/transformers, whose models keep id2label in config.json.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vspw_jax.classes.class_list import MOST, ClassList, coloured, told_apart
from vspw_jax.classes.unnamed import by_number
from vspw_jax.interop import stored_networks

HUGGING_FACE_CONFIG = "config.json"
PLACES = (("dataset_meta.classes", "dataset_meta.palette"), ("CLASSES", "PALETTE"))
"""Of names and colours in a checkpoint's meta."""


def _at(value: Any, place: str) -> Any:
    for key in place.split("."):
        value = stored_networks.entries(value).get(key)
    return value


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_palette(value: Any, count: int) -> bool:
    is_colour = lambda colour: (
        isinstance(colour, tuple | list)
        and len(colour) == 3
        and all(isinstance(channel, int) and 0 <= channel <= 255 for channel in colour)
    )
    return isinstance(value, tuple | list) and len(value) == count and all(map(is_colour, value))


def in_content(content: Any) -> ClassList | None:
    """The classes that a checkpoint of mmsegmentation names beside its tensors; None of one that names none."""
    meta = stored_networks.entries(content).get("meta")
    for names_place, palette_place in PLACES:
        names, palette = _at(meta, names_place), _at(meta, palette_place)
        if _is_names(names) and len(names) <= MOST:
            file_colours = [tuple(colour) for colour in palette] if _is_palette(palette, len(names)) else None
            return coloured(told_apart(names), file_colours=file_colours)
    return None


def in_config(path: pathlib.Path) -> ClassList | None:
    """The classes in a config.json of Hugging Face's beside a checkpoint, or in the folder that is one."""
    folder = path if path.is_dir() else path.parent
    try:
        labels = json.loads((folder / HUGGING_FACE_CONFIG).read_bytes())["id2label"]
        names = [labels[str(number)] for number in range(len(labels))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    is_list = isinstance(labels, Mapping) and _is_names(names) and len(names) <= MOST
    return coloured(told_apart(names)) if is_list else None


def chosen(found: ClassList | None, num_classes: int) -> tuple[ClassList, str]:
    """The classes of a network, and what is said of them: those that were found, if there are as many."""
    if found is not None and len(found.names) == num_classes:
        return found, "named by the file"
    return by_number(num_classes)
