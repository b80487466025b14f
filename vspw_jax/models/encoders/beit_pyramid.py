"""Plain BEiT as a pyramid: the features of four blocks, up- and downsampled to four scales.

Source: microsoft/unilm beit/semantic_segmentation/backbone/beit.py.
Shapes: N images, H and W patches (1/16), S = H*W + 1 tokens (class token first), C width.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides
from vspw_jax.models import layers
from vspw_jax.models.encoders import beit, beit_pyramid_rows


def run_length(out_blocks: Sequence[int]) -> int:
    """Blocks of a run: the blocks divide into the longest equal runs for which every block of `out_blocks` ends one."""
    return math.gcd(*out_blocks)


class Upsample4x(nnx.Module):
    """Two transposed convolutions of stride 2 with batch norm and exact GELU between: "fpn1" of the source."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.first = layers.Upsample2x(dim, dim, **options)
        self.norm = layers.batch_norm(dim, **options)
        self.second = layers.Upsample2x(dim, dim, **options)

    def __call__(self, x_NHWC: layers.Map, train: bool) -> layers.Map:
        x = self.norm(self.first(x_NHWC), use_running_average=not train)
        return self.second(jax.nn.gelu(x, approximate=False))


class BeitPyramid(beit.BeitEncoder):
    """BEiT: image to four maps of width `dim` at 1/4, 1/8, 1/16, 1/32, without a norm at the end.

    The blocks' variables are stacked under `blocks`; the leading axes are (run, block of the run). See `run_length`.

    Args:
      config: dim, depth, heads, mlp_ratio, layer_scale, drop_path (linear from 0 over the blocks), out_blocks (how many
        blocks come before each map, fine to coarse; all come before the last).
      image_size: (height, width) of the input in pixels, multiples of 16; fixes the relative position tables.
      remat: a key of `layers.REMAT_POLICIES`, for the blocks.

    Raises:
      UserError: an image_size or out_blocks that does not fit.
    """

    FIELDS = ("dim", "depth", "heads", "mlp_ratio", "layer_scale", "drop_path", "out_blocks")
    PUBLISHED = {
        name: {**size, "out_blocks": beit_pyramid_rows.published_out_blocks(size["depth"])}
        for name, size in beit.BeitEncoder.PUBLISHED.items()
    }
    BLOCKS = "blocks"
    STACKED = {"blocks": 2}
    TORCH_NAMES = beit_pyramid_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        check_divides("model.encoder.heads", config.heads, config.dim)
        check_sizes(config, image_size)

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        super().__init__(config, image_size, remat, dtype=dtype, rngs=rngs)
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.out_blocks = tuple(config.out_blocks)
        run = run_length(self.out_blocks)

        def make_run(rngs: nnx.Rngs) -> nnx.Module:
            return layers.stack_modules(lambda rngs: self.make_block(config, dtype=dtype, rngs=rngs), run, rngs)

        self.blocks = layers.stack_modules(make_run, config.depth // run, rngs)
        self.fpn1 = Upsample4x(config.dim, **options)
        self.fpn2 = layers.Upsample2x(config.dim, config.dim, **options)

    def make_block(self, config: ConfigDict, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Module:
        """A block: a function of (tokens, rate of stochastic depth, keys). A subclass may have another."""
        return beit.Block(
            config.dim, config.heads, config.mlp_ratio, self.window, config.layer_scale, dtype=dtype, rngs=rngs
        )

    def features(self, image_NHWC: Float[Array, "N H*16 W*16 3"], keys_N: layers.Keys = None) -> list[layers.Map]:
        """The patch tokens as maps (N, H, W, C) after each block of `out_blocks`."""
        token, x = self.embed(image_NHWC)
        run = run_length(self.out_blocks)

        def apply_block(block, x, layer):
            number, rate = layer
            return block(x, rate, layers.fold_keys(keys_N, number)), None

        def apply_run(blocks, x, run_layers):
            x, _ = layers.scan_modules(blocks, apply_block, x, run_layers, self.remat)
            return x, x

        # The outer scan keeps the tokens after every run, not after every block.
        numbers = jnp.arange(self.depth).reshape(-1, run)
        rates = jnp.linspace(0, self.drop_path, self.depth).reshape(-1, run)
        _, after_runs = layers.scan_modules(self.blocks, apply_run, jnp.concatenate([token, x], 1), (numbers, rates))
        return [after_runs[end // run - 1, :, 1:].reshape(x.shape[0], *self.window, -1) for end in self.out_blocks]

    def __call__(
        self, image_NHWC: Float[Array, "N H*16 W*16 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """Four maps (N, h, w, dim) at 1/4, 1/8, 1/16, 1/32 of images (N, *image_size, 3)."""
        quarter, eighth, sixteenth, last = self.features(image_NHWC, keys_N)
        return [self.fpn1(quarter, train), self.fpn2(eighth), sixteenth, nnx.max_pool(last, (2, 2), (2, 2))]


def check_sizes(config: ConfigDict, image_size: layers.Size) -> None:
    """Raises UserError unless patches fill the image and `out_blocks` are four, ascend and end with the last block."""
    if any(size % beit.PATCH or size < 2 * beit.PATCH for size in image_size):
        nearest = tuple(max(32, round(size / beit.PATCH) * beit.PATCH) for size in image_size)
        raise UserError(
            f"The crop is {tuple(image_size)} pixels, but its patches need multiples of {beit.PATCH}, at least 32. "
            f"Set --config.model.image_size='{nearest}'."
        )
    blocks = tuple(config.out_blocks)
    if len(blocks) != 4 or sorted(set(blocks)) != list(blocks) or blocks[0] < 1 or blocks[-1] != config.depth:
        raise UserError(
            f"model.encoder.out_blocks is {blocks}: expected four ascending counts of blocks that end with the depth, "
            f"{config.depth}. Set --config.model.encoder.out_blocks, such as (8, 12, 16, 24) for a depth of 24."
        )
