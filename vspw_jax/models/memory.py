"""What training passes collect and no gradient trains: feature memories, banks of prototypes.

A `Memory` is in the state's `model_state`, as batch norms' statistics are: checkpoints and an average of the weights
have it, and rows of names take it to PyTorch files. What a decoder carries from frame to frame of one video at
inference is something else: `Decoder.memory` and `Decoder.look`.
"""

from typing import TypeVar

from flax import nnx
from jax import lax
from jaxtyping import Array, PyTree

from vspw_jax.parallel.mesh import DATA_AXES

T = TypeVar("T", bound=PyTree[Array])


class Memory(nnx.Variable):
    """A variable that training passes change themselves.

    A module changes it where `train` is true, in no loop and in no rematerialised part, by values behind
    `lax.stop_gradient`. Each device sees its clips alone, and all devices must write the same: what depends on clips
    goes through `summed` first.
    """


def paths(model: nnx.Module) -> frozenset[str]:
    """Where a network's memories are, names joined by slashes."""
    return frozenset("/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, Memory)))


def summed(x: T) -> T:
    """The sums of arrays over all devices that share the batch.

    Take sums over clips and counts of what was summed, and divide afterwards: then the result is the same to rounding
    however the clips lie on devices. An average of devices' averages is not. One pixel of a class on one device would
    weigh as much as thousands on another.
    """
    return lax.psum(x, DATA_AXES)


def largest(x: T) -> T:
    """The largest values of arrays over all devices that share the batch."""
    return lax.pmax(x, DATA_AXES)
