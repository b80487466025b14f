"""A video's frames in their order: what a network remembers is handed from one batch to the next.

For a network that does not remember it only passes the frames on.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Array, PyTree, UInt8


class StartsFrames(Protocol):
    """A `Predictor`, or what stands before one."""

    def first_memory(self, height: int, width: int) -> PyTree[Array]:
        """See `Predictor.first_memory`."""

    def start(self, frames: Sequence[UInt8[np.ndarray, "H W 3"]], memory: PyTree[Array] = ()):
        """See `Predictor.start`."""


class InOrder:
    """Predicts a video from its first frame on, or from the frame after which `memory` was kept.

    Where frames change their size the network begins anew: what it remembers belongs to windows of the old size.

    Attributes:
      memory: after the frames that were started; None before the first ones.
    """

    def __init__(
        self, predictor: StartsFrames, memory: PyTree[Array] | None = None, shape: tuple | None = None
    ) -> None:
        self._predictor, self.memory, self._shape = predictor, memory, shape

    def start(self, frames: Sequence[UInt8[np.ndarray, "H W 3"]]):
        """The result of the next frames, all of one size; see `Predictor.start`."""
        if frames[0].shape != self._shape:
            self._shape = frames[0].shape
            self.memory = self._predictor.first_memory(*self._shape[:2])
        result = self._predictor.start(frames, self.memory)
        self.memory = result.memory
        return result
