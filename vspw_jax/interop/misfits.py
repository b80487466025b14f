"""What is done with a tensor of another size than ours: relative position tables and classifier heads.

A rule says in words what it does, and does it. All arrays are in PyTorch's axes.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vspw_jax.classes import label_maps, vspw
from vspw_jax.interop import relative_position
from vspw_jax.interop.name_maps import CLASSES, CLASSES_AND_NONE, POSITIONS
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
      text: says it.
      apply: from (theirs, fresh) to ours, where `fresh()` is our initial value.
      settles: the result does not depend on our initial value.
    """

    text: str
    apply: Callable
    settles: bool = True


AS_IT_IS = Rule("read as they are", lambda theirs, _: theirs)


def rule_for(row, tensor, our_shape, names, config):
    """The `Rule` that makes a tensor ours, or None if there is none for its shape.

    Args:
      row: the tensor's row.
      tensor: `StoredTensor`.
      our_shape: what its shape should be.
      names: all tensors of the file by name.
      config: config.model.
    """
    if tensor.shape[1:] != our_shape[1:] or bool(tensor.shape) != bool(our_shape):
        return None
    if row.counts == POSITIONS:
        return _resize(row, tensor, names, tuple(size // beit.PATCH for size in config.image_size))
    if row.counts in (CLASSES, CLASSES_AND_NONE):
        extra = int(row.counts == CLASSES_AND_NONE)
        return _map_classes(tensor.shape[0] - extra, our_shape[0] - extra, extra)
    return AS_IT_IS if tensor.shape == our_shape else None


def source_window(num_rows, index, target=None):
    """The window (H, W) of a table of `num_rows`, or None if it cannot be told.

    Args:
      index: the stored buffer relative_position_index beside it, or None.
      target: our window; without an index a table of our size is taken to be of it.
    """
    if index is not None and len(index.shape) == 2:
        windows = relative_position.windows_of(num_rows, index.shape[0] - 1)
    elif target and num_rows == relative_attention.num_rows(target):
        windows = [target]
    else:
        windows = relative_position.windows_of(num_rows)
    if len(windows) > 1:  # (H, W) or (W, H): only the indices themselves tell.
        found = index.read()
        windows = [window for window in windows if np.array_equal(found, relative_position.index(window))]
    return windows[0] if windows else None


def _resize(row, tensor, names, target):
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


def class_map(num_theirs, num_ours):
    """(name of the table, {our class: their classes}) that relates two sets of classes; (None, {}) if none does."""
    if (num_theirs, num_ours) not in CLASS_MAPS:
        return None, {}
    dataset, numbering = CLASS_MAPS[num_theirs, num_ours]
    sources = {}
    for source in label_maps.source_classes(dataset, numbering):
        if source.vspw_id is not None:
            sources.setdefault(source.vspw_id, []).append(source.value)
    return label_maps.NUMBERINGS[dataset][numbering].table, sources


def _map_classes(num_theirs, num_ours, extra):
    """Classes that correspond start from the file, as the mean of theirs; the last of `extra` rows is carried over."""
    if num_theirs == num_ours:
        return AS_IT_IS
    if num_theirs < 1:
        return None
    name, sources = class_map(num_theirs, num_ours)

    def apply(theirs, fresh):
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
