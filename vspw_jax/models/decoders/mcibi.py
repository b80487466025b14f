"""MCIBI: every pixel reads a feature memory by its own first pass; the forerunner of paper 001's decoder A, for images.

Sources: Mining Contextual Information Beyond Image for Semantic Segmentation, arXiv 2108.11819;
SegmentationBLWX/sssegmentation ssseg/modules/models/segmentors/mcibi/{mcibi,memory}.py.
Shapes: N images, H and W cells, C channels or classes.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import mcibi_rows
from vspw_jax.models.decoders.decoder import Maps, Training, keys_of
from vspw_jax.models.decoders.deeplabv3 import Aspp
from vspw_jax.models.decoders.fcn import AuxiliaryHead, check_auxiliary
from vspw_jax.models.decoders.reads_memory import Head, ReadsMemory, weights_of
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.feature_memory import FeatureMemory
from vspw_jax.models.temporal.memory_attention import MemoryAttention


class Mcibi(ReadsMemory):
    """The encoder's coarsest map to logits of every cell of it; an auxiliary head gives more logits for training.

    Args:
      maps: of any number, width and stride; all but the last and the auxiliary head's are left out.
      config: dim (of the memory and of all maps here), dilations (of DeepLabV3's pyramid, the context within the
        image), the fields of `ReadsMemory`, dropout, dropped (a key of `layers.DROPPED`, of the auxiliary head),
        auxiliary_dim (0 for no auxiliary head), auxiliary_level (the map that it reads), auxiliary_dropout.
    """

    AUXILIARY = "auxiliary"
    FIELDS = (
        *("dim", "dilations", *ReadsMemory.MEMORY_FIELDS, "dropout", "dropped"),
        *("auxiliary_dim", "auxiliary_level", "auxiliary_dropout"),
    )
    TORCH_NAMES = mcibi_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(layers.DROPPED, config.dropped, "model.decoder.dropped")
        check_auxiliary(config, maps)
        if config.dim % 2:
            raise UserError(f"model.decoder.dim is {config.dim}: expected an even number.")

    @classmethod
    def least_images(cls, config: ConfigDict) -> int:
        return 2

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
        self.check(config, maps)
        options = layers.Options(dtype=dtype, rngs=rngs)
        dim, width, heads = config.dim, maps[-1].width, (num_classes, config.dropout)
        self.config, self.num_classes = FrozenConfigDict(config), num_classes
        self.aspp = Aspp(width, dim, tuple(config.dilations), mean_first=False, joining_size=3, **options)
        self.represent_conv = layers.ConvNormRelu(width, dim, 3, **options)
        self.first_head = Head(dim, *heads, **options)
        self.feature_memory = FeatureMemory(num_classes, dim)
        self.attention, self.context_attention = (MemoryAttention(dim, remat, **options) for _ in range(2))
        self.join_conv, self.context_conv = (layers.ConvNormRelu(2 * dim, dim, 3, **options) for _ in range(2))
        self.head = Head(dim, *heads, **options)
        self.auxiliary = AuxiliaryHead(maps, num_classes, config, **options) if config.auxiliary_dim else None

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC`, their `features_NHWC` and `first_pass_logits_NHWC`, with the size of the coarsest map;
        `auxiliary_logits_NHWC`; in training `memory_logits_KC` of the memory's rows, and `memory_valid_K`."""
        train = training is not None
        features = self.represent_conv(maps[-1], train)
        first_pass = self.first_head(features, train, keys_of(training, 2))
        joined = self._joined(maps[-1], features, first_pass, train)
        outputs = {
            "features_NHWC": joined.astype(jnp.float32),
            "logits_NHWC": self.head(joined, train, keys_of(training, 0)),
            "first_pass_logits_NHWC": first_pass,
        }
        if self.auxiliary is not None:
            outputs |= self.auxiliary.outputs(maps, training)
        if training:
            outputs |= self.row_outputs(joined.dtype)
            self.learn(features, training)
        return outputs

    def _joined(
        self, x_NHWC: layers.Map, features_NHWC: layers.Map, first_pass_NHWK: layers.Map, train: bool
    ) -> layers.Map:
        """What is classified: the context within the image beside that beyond it."""
        mask = self.masks(first_pass_NHWK, features_NHWC)
        recalled = self.feature_memory.recall(weights_of(mask, mask, self.num_classes), features_NHWC)
        beyond = self.attention(features_NHWC, recalled, train)
        beyond = self.join_conv(jnp.concatenate([features_NHWC, beyond], axis=-1), train)
        within = self.context_attention(features_NHWC, self.aspp(x_NHWC, train), train)
        return self.context_conv(jnp.concatenate([within, beyond], axis=-1), train)
