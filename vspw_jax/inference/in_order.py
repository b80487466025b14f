"""A video's frames in their order: what a network remembers is handed from one batch to the next."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Array, PyTree, UInt8


class StartsFrames(Protocol):
    """A `Predictor`, or what stands before one."""

    remembers: bool

    def first_memory(self, height: int, width: int) -> PyTree[Array]:
        """See `Predictor.first_memory`."""

    def start(
        self,
        frames: Sequence[UInt8[np.ndarray, "H W 3"]],
        memory: PyTree[Array] = (),
        masks: Sequence[UInt8[np.ndarray, "H W"]] | None = None,
    ) -> Any:
        """See `Predictor.start`."""


class InOrder:
    """Predicts a video from its first frame on, or from the frame after which `memory` was kept.

    Where frames change their size the network begins anew: what it remembers belongs to windows of the old size.

    Args:
      memory: after the frame before, and
      shape: the shape of that frame; None before a first frame.
    """

    def __init__(
        self, predictor: StartsFrames, memory: PyTree[Array] = (), shape: tuple[int, ...] | None = None
    ) -> None:
        self._predictor, self._memory, self._shape = predictor, memory, shape

    def start(
        self,
        frames: Sequence[UInt8[np.ndarray, "H W 3"]],
        masks: Sequence[UInt8[np.ndarray, "H W"]] | None = None,
    ) -> Any:
        """The result of the next frames, all of one size; see `Predictor.start`."""
        if not self._predictor.remembers:
            return self._predictor.start(frames)
        if frames[0].shape != self._shape:
            self._shape = frames[0].shape
            self._memory = self._predictor.first_memory(*frames[0].shape[:2])
        result = self._predictor.start(frames, self._memory, *(() if masks is None else (masks,)))
        self._memory = result.memory
        return result
