"""Maps as blocks of whole rows, as kernels for TPUs read them: 128 cells or more, in whole tiles of the memory.

Shapes: G heads of all images, S cells over all maps, H and W cells of a map, C cells of a block, D channels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from vspw_jax.sampling.kernels import LANES, ROWS_OF_TILE, up_to_multiple


class Level(NamedTuple):
    """A map (height, width) as blocks of whole rows; what lies beyond it has value 0."""

    height: int
    width: int

    @property
    def padded_width(self) -> int:
        """Columns of a block."""
        return up_to_multiple(self.width, ROWS_OF_TILE)

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return max(LANES // self.padded_width, 1)

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.height // self.rows)

    @property
    def padded_height(self) -> int:
        """Rows of all blocks, and what fills up a tile."""
        return up_to_multiple(self.blocks * self.rows, ROWS_OF_TILE)

    def blocked(self, value_GHWD: Float[Array, "G H W D"]) -> Float[Array, "G blocks C D"]:
        """A map's values, block by block."""
        heads, dim = value_GHWD.shape[0], value_GHWD.shape[3]
        below, right = self.blocks * self.rows - self.height, self.padded_width - self.width
        padded = jnp.pad(value_GHWD, ((0, 0), (0, below), (0, right), (0, 0)))
        return padded.reshape(heads, self.blocks, self.rows * self.padded_width, dim)

    def whole(self, block_GBCD: Float[Array, "G blocks C D"]) -> Float[Array, "G cells D"]:
        """Of values in blocks those of the map's cells."""
        heads, dim = block_GBCD.shape[0], block_GBCD.shape[3]
        rows = block_GBCD.reshape(heads, self.blocks * self.rows, self.padded_width, dim)
        return rows[:, : self.height, : self.width].reshape(heads, -1, dim)


def blocks_of(value_GSD: Float[Array, "G S D"], levels: Sequence[Level]) -> list[Float[Array, "G blocks C D"]]:
    """The values of every level in blocks."""
    blocks, start = [], 0
    for level in levels:
        cells = level.height * level.width
        value_GHWD = value_GSD[:, start : start + cells].reshape(-1, level.height, level.width, value_GSD.shape[2])
        blocks.append(level.blocked(value_GHWD))
        start += cells
    return blocks
