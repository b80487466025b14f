"""Rules for tensors whose size is not ours: classifier heads, and what the encoder knows a way for.

A rule says in words what it does, and does it. All arrays are in PyTorch's axes.
"""

from collections.abc import Callable, Mapping

import numpy as np
from ml_collections import ConfigDict

from vspw_jax.classes import label_maps, vspw
from vspw_jax.interop.stored_networks import Tensor
from vspw_jax.models.torch_rows import AS_IT_IS, CLASSES, CLASSES_AND_NONE, Row, Rule

CLASS_MAPS = {
    (150, vspw.NUM_CLASSES): ("ade20k", "reduced_0_149"),
    (171, vspw.NUM_CLASSES): ("coco_stuff", "trainid_0_170"),
}
"""(classes there, classes here): the data set of the classes there, and the numbering that a classifier of it uses."""


def rule_for(
    row: Row,
    tensor: Tensor,
    our_shape: tuple[int, ...],
    tensors: Mapping[str, Tensor],
    config: ConfigDict,
) -> Rule | None:
    """The rule that makes a tensor ours, or None if there is none for its shape.

    Args:
      our_shape: what its shape should be.
      tensors: all of the file, by name.
      config: config.model.
    """
    if row.fit is not None:
        return row.fit.rule(row.theirs, tensors, our_shape, tuple(config.image_size))
    if tensor.shape[1:] != our_shape[1:] or bool(tensor.shape) != bool(our_shape):
        return None
    if row.counts in (CLASSES, CLASSES_AND_NONE):
        extra = int(row.counts == CLASSES_AND_NONE)
        return _map_classes(tensor.shape[0] - extra, our_shape[0] - extra, extra)
    return AS_IT_IS if tensor.shape == our_shape else None


def class_map(num_theirs: int, num_ours: int) -> tuple[str | None, dict[int, list[int]]]:
    """The table that relates two sets of classes: its name and {our class: their classes}; (None, {}) if none does."""
    if (num_theirs, num_ours) not in CLASS_MAPS:
        return None, {}
    dataset, numbering = CLASS_MAPS[num_theirs, num_ours]
    sources: dict[int, list[int]] = {}
    for source in label_maps.of(dataset, numbering).sources:
        if source.train_id is not None:
            sources.setdefault(source.train_id, []).append(source.value)
    return label_maps.NUMBERINGS[dataset][numbering].table, sources


def _map_classes(num_theirs: int, num_ours: int, extra: int) -> Rule | None:
    """A class of ours that has classes there starts as their mean; `extra` last rows (0 or 1) are carried over."""
    if num_theirs == num_ours:
        return AS_IT_IS
    if num_theirs == 0:
        text = "classifier that was not trained there: ours stays as initialised"
        return Rule(text, lambda theirs, fresh: fresh(), settles=False)
    if num_theirs < 0:
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
