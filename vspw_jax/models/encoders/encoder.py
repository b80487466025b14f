"""What every encoder tells the rest of the program about itself.

A new encoder is a subclass in a file of its own and a line in `segmenter.ENCODERS`. The decoder, the optimizer, the
sharding rules and the checks of a recipe ask the class, so none of them knows an encoder by its name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.torch_names import EncoderNames


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """A map that an encoder gives.

    Attributes:
      width: channels.
      stride: pixels of the image from one cell to the next, in height and in width.
    """

    width: int
    stride: int


class Encoder(nnx.Module):
    """Images (N, H, W, 3) to feature maps (N, H / stride, W / stride, width), fine to coarse.

    `config` is `config.model.encoder` in every method here; `remat` is a key of `layers.REMAT_POLICIES`.
    """

    FIELDS: ClassVar[tuple[str, ...]]
    """The fields of its config besides `name`."""

    PUBLISHED: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """The published sizes by their names: the fields of its config in which they differ from one another."""

    STACKED: ClassVar[dict[str, int]] = {}
    """Paths in the encoder of variables that are stacked for a scan, and the number of leading axes that are stacked.
    A path counts for everything below it. Where several paths fit, the longest counts."""

    TORCH_NAMES: ClassVar[EncoderNames] = {}
    """Its names in PyTorch files, for each kind of file that it can be read from and written to."""

    NO_DECAY: ClassVar[str] = "$^"
    """Pattern of paths in the encoder, besides biases and norms, that weight decay leaves alone under
    `optimizer.decayed="kernels"`."""

    drop_path: float = 0.0
    """The rate of stochastic depth in its last block. At 0 a pass draws nothing, and gets no keys."""

    @classmethod
    def maps(cls, config: ConfigDict) -> tuple[FeatureMap, ...]:
        """The maps that it gives, fine to coarse."""
        raise NotImplementedError

    @classmethod
    def check(cls, config: ConfigDict, image_size: layers.Size) -> None:
        """Raises UserError where its config makes no network or does not fit the image size."""

    @classmethod
    def num_layers(cls, config: ConfigDict) -> int:
        """Layers that have a learning rate of their own under layer-wise decay: a transformer's blocks."""
        return 0

    @classmethod
    def layer_id(cls, config: ConfigDict, path: str, shape: tuple[int, ...]) -> int | np.ndarray | None:
        """The layer of a parameter at a path in the encoder: 0 before the first one, i + 1 in the one of index i.

        For a stacked parameter it is an array that broadcasts against `shape`. None means that the parameter is in no
        layer and has the full learning rate.
        """
        return None

    def __init__(
        self, config: ConfigDict, image_size: layers.Size, remat: str, *, dtype: jnp.dtype, rngs: nnx.Rngs
    ) -> None:
        raise NotImplementedError

    def __call__(
        self, image_NHWC: Float[Array, "N H W 3"], train: bool = False, keys_N: layers.Keys = None
    ) -> list[layers.Map]:
        """The maps, as `maps` describes them; `keys_N` is for stochastic depth."""
        raise NotImplementedError
