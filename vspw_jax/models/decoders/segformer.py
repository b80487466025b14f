"""SegFormer's decoder: every map to one width, all joined with the size of the finest, and a classifier of every cell.

Sources: SegFormer, arXiv 2105.15203, section 3.2 (equation 4); NVlabs/SegFormer and open-mmlab/mmsegmentation
mmseg/models/decode_heads/segformer_head.py.
Shapes: N images, H and W cells, C channels or classes.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import segformer_rows
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Decoder, Maps, Training, keys_of
from vspw_jax.models.encoders.encoder import FeatureMap

VARIANTS = ("nvlabs", "mmseg")
"""By `config.variant`: a linear layer gives a map its width, or a 1x1 convolution with batch norm and ReLU."""


class Projection(nnx.Linear):
    """A linear layer that is called as a `ConvNormRelu` is."""

    def __call__(self, x_NHWC: layers.Map, train: bool) -> layers.Map:  # type: ignore[override]
        return super().__call__(x_NHWC)


class Fusion(layers.ConvNormRelu):
    """A 1x1 convolution of maps of one width, joined with the size of the finest, with batch norm and ReLU.

    A resize and a 1x1 convolution of joined maps change places: each map goes through its part of the kernel before it
    is resized, which for four maps is a third of the work.

    Args:
      count: of maps.
      coarse_first: whether the coarsest map's part of the kernel stands first.
    """

    def __init__(self, count: int, dim: int, coarse_first: bool, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        super().__init__(count * dim, dim, 1, dtype=dtype, rngs=rngs)
        self.count, self.coarse_first = count, coarse_first

    def join(self, maps: Maps, train: bool) -> layers.Map:
        """The joined map of maps that are listed fine to coarse."""
        kernels = jnp.split(self.conv.kernel[...].astype(maps[0].dtype), self.count)
        kernels = kernels[::-1] if self.coarse_first else kernels
        size = maps[0].shape[1:3]
        parts = [x @ kernel for x, kernel in zip(maps, kernels, strict=True)]
        x = sum((layers.resize_bilinear(x, *size) for x in parts[1:]), parts[0])
        return jax.nn.relu(self.norm(x, use_running_average=not train))


class SegFormer(Decoder):
    """The encoder's maps to logits of every cell of the finest one.

    Nothing here is rematerialised: the pass itself updates the batch norms' running means.

    Args:
      maps: of any number, width and stride.
      num_classes: real classes.
      config: variant (one of `VARIANTS`), dim, dropout, dropped (a key of `layers.DROPPED`).
    """

    FIELDS = ("variant", "dim", "dropout", "dropped")
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = segformer_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        choose(dict.fromkeys(VARIANTS), config.variant, "model.decoder.variant")
        choose(layers.DROPPED, config.dropped, "model.decoder.dropped")

    @classmethod
    def features_width(cls, config: ConfigDict) -> int:
        return config.dim

    def __init__(
        self,
        maps: tuple[FeatureMap, ...],
        num_classes: int,
        config: ConfigDict,
        remat: str,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        del remat
        self.check(config, maps)
        options, is_mmseg = layers.Options(dtype=dtype, rngs=rngs), config.variant == "mmseg"

        def projection(width: int) -> Projection | layers.ConvNormRelu:
            if is_mmseg:
                return layers.ConvNormRelu(width, config.dim, 1, **options)
            return Projection(width, config.dim, kernel_init=layers.torch_uniform, **options)

        self.projections = nnx.List([projection(x.width) for x in maps])
        self.fusion = Fusion(len(maps), config.dim, not is_mmseg, **options)
        self.classifier = Classifier(config.dim, num_classes, config.dropout, config.dropped, **options)

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC` and the `features_NHWC` of which they are made, with the size of the finest map."""
        train = training is not None
        levels = [projection(x, train) for projection, x in zip(self.projections, maps, strict=True)]
        features = self.fusion.join(levels, train)
        logits = self.classifier(features, keys_of(training, 0))
        return {"features_NHWC": features.astype(jnp.float32), "logits_NHWC": logits}
