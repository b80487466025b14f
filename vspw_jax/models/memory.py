"""What training passes collect and no gradient trains: feature memories, banks of prototypes.

A `Memory` is in the state's `model_state`, as batch norms' statistics are: checkpoints and an average of the weights
have it, and rows of names take it to PyTorch files. What a decoder carries from frame to frame of one video at
inference is something else: `Decoder.memory` and `Decoder.look`.
"""

from typing import Any, TypeVar

import jax
from flax import nnx
from jax import lax
from jaxtyping import Array, PyTree

from vspw_jax.parallel.mesh import DATA_AXES

T = TypeVar("T", bound=PyTree[Array])


class Memory(nnx.Variable):
    """A variable that training passes change themselves.

    A module changes it where `train` is true, in no loop and in no rematerialised part, by values behind
    `lax.stop_gradient`. Each device sees its clips alone, and all devices must write the same: what depends on clips
    goes through `summed` first. Where it is more than a sum over clips, see `Seen`.
    """


class Seen(nnx.Variable):
    """What a pass in training has seen for a memory, where sums of several passes say more than their results.

    A module whose memory is no sum keeps it as its attribute `seen` in place of changing the memory, and has a method
    `settle`. A step then settles once, with what all parts of its batch have seen, along a new first axis. So the
    memory learns the same whatever `train.accumulate` is.
    """


def settle(module: Any, seen: dict[str, Any]) -> None:
    """Has the modules in a network change their memories by what was seen.

    Args:
      module: the network.
      seen: nested dict of its `Seen`, those of a step's passes stacked.
    """
    for name, inner in seen.items():
        if name == "seen":
            module.settle(inner)
        else:
            settle(getattr(module, name), inner)


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


def gathered(x: T) -> T:
    """Arrays of all devices, one after the other along the first axis: where that is of clips, in the batch's order."""
    return jax.tree.map(lambda leaf: lax.all_gather(leaf, DATA_AXES, tiled=True), x)


def largest(x: T) -> T:
    """The largest values of arrays over all devices that share the batch."""
    return lax.pmax(x, DATA_AXES)
