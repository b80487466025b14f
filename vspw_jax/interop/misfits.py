"""Rules for tensors whose size is not ours: relative position tables and classifier heads.

A rule says in words what it does, and does it. All arrays are in PyTorch's axes.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import ConfigDict

from vspw_jax.classes import label_maps, vspw
from vspw_jax.interop import relative_position
from vspw_jax.interop.name_maps import CLASSES, CLASSES_AND_NONE, POSITIONS, Row
from vspw_jax.interop.stored_tensors import StoredTensor
from vspw_jax.models.encoders import beit, relative_attention

CLASS_MAPS = {
    (150, vspw.NUM_CLASSES): ("ade20k", "reduced_0_149"),
    (171, vspw.NUM_CLASSES): ("coco_stuff", "trainid_0_170"),
}
"""(classes there, classes here): the data set of the classes there, and the numbering that a classifier of it uses."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a tensor becomes ours.

    Attributes:
      text: says what is done.
      apply: function of (theirs, fresh) that gives ours; `fresh()` gives our initial value.
      settles: whether the result does not depend on our initial value.
    """

    text: str
    apply: Callable[[np.ndarray, Callable[[], np.ndarray]], np.ndarray]
    settles: bool = True


AS_IT_IS = Rule("read as they are", lambda theirs, _: theirs)


def rule_for(
    row: Row,
    tensor: StoredTensor,
    our_shape: tuple[int, ...],
    names: Mapping[str, StoredTensor],
    config: ConfigDict,
) -> Rule | None:
    """The rule that makes a tensor ours, or None if there is none for its shape.

    Args:
      our_shape: what its shape should be.
      names: all tensors of the file by name.
      config: config.model.
    """
    if tensor.shape[1:] != our_shape[1:] or bool(tensor.shape) != bool(our_shape):
        return None
    if row.counts == POSITIONS:
        height, width = config.image_size
        return _resize(row, tensor, names, (height // beit.PATCH, width // beit.PATCH))
    if row.counts in (CLASSES, CLASSES_AND_NONE):
        extra = int(row.counts == CLASSES_AND_NONE)
        return _map_classes(tensor.shape[0] - extra, our_shape[0] - extra, extra)
    return AS_IT_IS if tensor.shape == our_shape else None


def source_window(
    num_rows: int, index: StoredTensor | None, target: tuple[int, int] | None = None
) -> tuple[int, int] | None:
    """The window (H, W) of a table of `num_rows` rows, or None if it cannot be told.

    Args:
      index: the stored buffer relative_position_index beside it, or None.
      target: our window; without an index, a table of our size is taken to have our window.
    """
    if index is not None and len(index.shape) == 2:
        windows = relative_position.windows_of(num_rows, index.shape[0] - 1)
    elif target and num_rows == relative_attention.num_rows(target):
        windows = [target]
    else:
        windows = relative_position.windows_of(num_rows)
    if index and len(windows) > 1:  # (H, W) or (W, H): only the indices themselves tell.
        found = index.read()
        windows = [window for window in windows if np.array_equal(found, relative_position.index(window))]
    return windows[0] if windows else None


def _resize(row: Row, tensor: StoredTensor, names: Mapping[str, StoredTensor], target: tuple[int, int]) -> Rule | None:
    source = source_window(tensor.shape[0], names.get(row.theirs.removesuffix("bias_table") + "index"), target)
    if source is None:
        return None
    if source == target:
        return AS_IT_IS
    text = (
        f"relative position tables resized from {source[0]}x{source[1]} to {target[0]}x{target[1]} patches "
        "(geometric-cubic)"
    )
    return Rule(text, lambda theirs, _: relative_position.resize(theirs, source, target))


def class_map(num_theirs: int, num_ours: int) -> tuple[str | None, dict[int, list[int]]]:
    """The table that relates two sets of classes: its name and {our class: their classes}; (None, {}) if none does."""
    if (num_theirs, num_ours) not in CLASS_MAPS:
        return None, {}
    dataset, numbering = CLASS_MAPS[num_theirs, num_ours]
    sources: dict[int, list[int]] = {}
    for source in label_maps.source_classes(dataset, numbering):
        if source.vspw_id is not None:
            sources.setdefault(source.vspw_id, []).append(source.value)
    return label_maps.NUMBERINGS[dataset][numbering].table, sources


def _map_classes(num_theirs: int, num_ours: int, extra: int) -> Rule | None:
    """A class of ours that has classes there starts as their mean; `extra` last rows (0 or 1) are carried over."""
    if num_theirs == num_ours:
        return AS_IT_IS
    if num_theirs < 1:
        return None
    name, sources = class_map(num_theirs, num_ours)

    def apply(theirs: np.ndarray, fresh: Callable[[], np.ndarray]) -> np.ndarray:
        ours = fresh().copy()
        for our_class, their_classes in sources.items():
            ours[our_class] = theirs[their_classes].mean(axis=0)
        if extra:
            ours[-1] = theirs[-1]
        return ours

    by = (
        f"by {name}.csv {len(sources)} start from the file"
        if name
        else "no table relates them, so none starts from the file"
    )
    text = f"classifier of {num_theirs} classes for our {num_ours}: {by}, {num_ours - len(sources)} as initialised"
    return Rule(text + (", no-object from the file" if extra else ""), apply, settles=False)
