"""Of how many blocks the kernel of deformable attention multiplies values at the start of training, by counting.

    python -m benchmarks.touched_blocks --crop=480

The kernel skips the blocks that no sample of 128 queries touches (`vspw_jax/sampling/deformable_kernel.py`). How many
are left depends on where samples lie, which no compiler knows. At the start they lie up to four cells beside a query's
own place. Printed is for each level of each attention of the main system: the blocks, and the mean of those touched.
"""

import argparse

import numpy as np

from vspw_jax.console.errors import UserError, run_program
from vspw_jax.models import deformable_attention
from vspw_jax.models.encoders.vit_adapter import pyramid_shapes
from vspw_jax.sampling import deformable_kernel
from vspw_jax.sampling.cell_blocks import Level
from vspw_jax.sampling.kernels import LANES, OFF_THE_MAP

POINTS = 4


def attentions(crop):
    """{name: (maps of the queries, maps of the values, heads)} at a crop's size."""
    window = (crop // 16, crop // 16)
    fine_to_coarse = pyramid_shapes(window)
    return {
        "pixel decoder": (fine_to_coarse[::-1], fine_to_coarse[::-1], 32),
        "injector": ([window], fine_to_coarse, 16),
        "extractor": (fine_to_coarse, [window], 16),
    }


def mean_touched(query_shapes, value_shapes, heads):
    """Of each level (its blocks, the mean number that 128 queries of a head touch)."""
    levels = [Level(*shape) for shape in value_shapes]
    centre_Q = deformable_attention.cell_centres(query_shapes)[:, 1]
    offset_GVP = deformable_attention.offset_bias(heads, len(levels), POINTS).reshape(heads, -1, POINTS, 2)[..., 1]
    height_V11 = np.array([level.height for level in levels])[:, None, None]
    y_GVPQ = centre_Q * height_V11 - 0.5 + offset_GVP[..., None]
    y_GKQ = y_GVPQ.reshape(heads, -1, len(centre_Q)).astype(np.float32)
    y_GKQ = np.pad(y_GKQ, ((0, 0), (0, 0), (0, -len(centre_Q) % LANES)), constant_values=OFF_THE_MAP)
    first_GVT, end_GVT = map(np.asarray, deformable_kernel.touched_blocks(levels, y_GKQ))
    mean_V = np.maximum(end_GVT - first_GVT, 0).mean(axis=(0, 2))
    return [(level.blocks, float(mean)) for level, mean in zip(levels, mean_V, strict=True)]


def parser():
    """The command line."""
    result = argparse.ArgumentParser(description="Blocks of maps that deformable attention touches at the start.")
    result.add_argument("--crop", type=int, default=480, help="A multiple of 32.")
    return result


def main():
    crop = parser().parse_args().crop
    if crop <= 0 or crop % 32:
        raise UserError(f"--crop={crop} gives no whole maps: expected a multiple of 32, such as --crop=480.")
    for name, sizes in attentions(crop).items():
        rows = [f"{mean:.2f} of {blocks}" for blocks, mean in mean_touched(*sizes)]
        print(f"{name}: {', '.join(rows)} blocks")


if __name__ == "__main__":
    run_program(main)
