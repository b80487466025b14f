"""The names of a checkpoint's classes: those that it holds beside its tensors, or that a config.json beside it has.

Sources: open-mmlab/mmengine mmengine/runner/runner.py (meta.dataset_meta); mmsegmentation 0.x (meta.CLASSES);
huggingface/transformers, whose models keep id2label in config.json. Files of safetensors that we write have both as
JSON in their header, for which nobody has a rule.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import HOLE, MOST, VOID, ClassList, Colour, chosen_colours, told_apart
from vspw_jax.classes.unnamed import by_number
from vspw_jax.interop import safetensors_files, stored_networks

HUGGING_FACE_CONFIG = "config.json"
PLACES = (("dataset_meta.classes", "dataset_meta.palette"), ("CLASSES", "PALETTE"))
"""Of names and colours in a checkpoint's meta."""
HEADER = ("classes", "palette")
"""Of the same in the header of safetensors."""


def _at(value: Any, place: str) -> Any:
    for key in place.split("."):
        value = stored_networks.entries(value).get(key)
    return value


def _is_names(value: Any) -> bool:
    is_list = isinstance(value, tuple | list) and bool(value) and all(isinstance(name, str) for name in value)
    return is_list and (len(value) <= MOST or value[VOID] == HOLE)


def _is_palette(value: Any, count: int) -> bool:
    is_colour = lambda colour: (
        isinstance(colour, tuple | list)
        and len(colour) == 3
        and all(isinstance(channel, int) and 0 <= channel <= 255 for channel in colour)
    )
    return isinstance(value, tuple | list) and len(value) == count and all(map(is_colour, value))


def _named(names: Any, palette: Any) -> ClassList | None:
    """The classes of such names, coloured in files by the palette if it is one; None where these are no names."""
    if not _is_names(names):
        return None
    names = told_apart(names)
    if tuple(names) == vspw.classes().names:
        return vspw.classes()
    file_colours: list[Colour] | None = None
    if _is_palette(palette, len(names)):
        file_colours = [(red, green, blue) for red, green, blue in palette]
    chosen = chosen_colours(names, {})
    return ClassList(tuple(names), chosen, tuple(file_colours or chosen))


def for_meta(classes: ClassList) -> dict[str, Any]:
    """What a checkpoint of mmsegmentation says of its classes in `meta`, for versions 0 and 1."""
    names, palette = tuple(classes.names), [list(colour) for colour in classes.file_colours]
    return {"CLASSES": names, "PALETTE": palette, "dataset_meta": {"classes": names, "palette": palette}}


def for_header(classes: ClassList) -> dict[str, str]:
    """What the header of safetensors says of them."""
    values = classes.names, classes.file_colours
    return {name: json.dumps(value, ensure_ascii=False) for name, value in zip(HEADER, values, strict=True)}


def in_header(path: pathlib.Path) -> ClassList | None:
    """The classes in the header of a file, if it is one of safetensors that names them."""
    if path.is_dir() or not safetensors_files.is_safetensors(path):
        return None
    found = safetensors_files.metadata(path)
    try:
        names, palette = (json.loads(found.get(name, "null")) for name in HEADER)
    except (ValueError, TypeError, RecursionError):
        return None
    return _named(names, palette)


def in_content(content: Any) -> ClassList | None:
    """The classes that a checkpoint of mmsegmentation names beside its tensors; None of one that names none."""
    meta = stored_networks.entries(content).get("meta")
    for names_place, palette_place in PLACES:
        if found := _named(_at(meta, names_place), _at(meta, palette_place)):
            return found
    return None


def in_config(path: pathlib.Path) -> ClassList | None:
    """The classes in a config.json of Hugging Face's beside a checkpoint, or in the folder that is one."""
    folder = path if path.is_dir() else path.parent
    try:
        labels = json.loads((folder / HUGGING_FACE_CONFIG).read_bytes())["id2label"]
        names = [labels[str(number)] for number in range(len(labels))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _named(names, None) if isinstance(labels, Mapping) else None


def chosen(found: ClassList | None, num_classes: int) -> tuple[ClassList, str]:
    """The classes of a network, and what is said of them: those that were found, if there are as many."""
    if found is not None and len(found.names) == num_classes:
        return found, "named by the file"
    return by_number(num_classes)
