"""The encoder of a recipe by itself, from images to the gradient of its weights, for one chip."""

import unittest.mock

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import compile_for_tpu
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh


def traced(options):
    """The gradient of the maps' sum, traced for a chip of --topology with --clips of --frames images.

    Stochastic depth is off: it leaves the work as it is.
    """
    config = compile_for_tpu.recipe(options, 1).model
    kind, size = segmenter.ENCODERS[config.encoder.name], tuple(config.image_size)
    mesh = make_mesh(devices=compile_for_tpu.devices_of(options.topology)[:1])
    whole = NamedSharding(mesh, P())
    placed = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)

    def make():
        dtype = segmenter.DTYPES[config.dtype]
        return kind(config.encoder, size, config.remat, dtype=dtype, rngs=nnx.Rngs(0))

    def gradient(params, others, image):
        def total(params):
            maps = nnx.merge(graphdef, params, others)(image, train=True)
            return sum(x.astype(jnp.float32).sum() for x in maps)

        return jax.grad(total)(params)

    with unittest.mock.patch.object(jax, "default_backend", lambda: "tpu"), jax.set_mesh(mesh):
        graphdef, *variables = nnx.split(nnx.eval_shape(make), nnx.Param, ...)
        params, others = (jax.tree.map(placed, nnx.to_pure_dict(tree)) for tree in variables)
        images = placed(jax.ShapeDtypeStruct((options.clips * options.frames, *size, 3), jnp.float32))
        mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P(), P()), out_specs=P(), check_vma=False)
        return jax.jit(mapped).trace(params, others, images)
