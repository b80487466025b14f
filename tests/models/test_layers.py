"""Layers that differ from flax's."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from vspw_jax import sharding
from vspw_jax.models import layers


def test_batch_norm_counts_training_batches_alone():
    graphdef, state = nnx.split(layers.batch_norm(3, dtype=jnp.float32, rngs=nnx.Rngs(0)))

    def apply(state, x, train):
        norm = nnx.merge(graphdef, state)
        norm(x, use_running_average=not train)
        return nnx.state(norm)

    mesh = sharding.make_mesh()
    mapped = lambda train: jax.shard_map(
        lambda state, x: apply(state, x, train), mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False
    )
    x = jnp.ones((mesh.size, 2, 2, 3))
    for _ in range(3):
        state = mapped(True)(state, x)
    state = mapped(False)(state, x)
    assert state["count"][...] == 3 and state["count"][...].dtype == np.int32
