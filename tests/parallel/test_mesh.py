"""How programs are compiled for the devices of a mesh."""

import jax
import jax.numpy as jnp

from vspw_jax.parallel.mesh import compiler_options, make_mesh


def test_programs_on_cpu_are_scheduled_for_memory():
    """Of sixteen independent products a memory-minded order keeps few alive at once, the default order most."""
    mesh = make_mesh(devices=jax.devices()[:1])

    def products(x, weights):
        return sum(jnp.tanh(x @ weight).sum() for weight in weights)

    shapes = jax.ShapeDtypeStruct((64, 64), jnp.float32), jax.ShapeDtypeStruct((16, 64, 4096), jnp.float32)
    compiled = jax.jit(products, compiler_options=compiler_options(mesh)).lower(*shapes).compile()
    default = jax.jit(products).lower(*shapes).compile()
    taken, otherwise = (x.memory_analysis().temp_size_in_bytes for x in (compiled, default))
    assert taken < 0.5 * otherwise
