"""TMANet: every pixel of a frame attends to the frames before it, and is classified by what it saw.

Sources: Temporal Memory Attention for Video Semantic Segmentation (Wang et al., arXiv 2102.08643); wanghao9610/TMANet
mmseg/models/decode_heads/tma_head.py.
Shapes: N images, H and W cells, C channels or classes.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.console.errors import choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import tmanet_rows
from vspw_jax.models.decoders.classifier import Classifier
from vspw_jax.models.decoders.decoder import Maps, Training, keys_of
from vspw_jax.models.decoders.fcn import AuxiliaryHead, check_auxiliary
from vspw_jax.models.decoders.looks_back import LooksBack
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.temporal_memory_attention import TemporalMemoryAttention


class TMANet(LooksBack):
    """The encoder's coarsest map to logits of every cell of it; an auxiliary head gives more logits for training.

    Nothing but the attention is rematerialised: the pass itself updates the batch norms' running means.

    Args:
      maps: of any number, width and stride; all but the last and the auxiliary head's are left out.
      config: past, past_frames (one of `looks_back.PAST_FRAMES`), key_dim, value_dim, dim (of what is classified),
        dropout, dropped (a key of `layers.DROPPED`), auxiliary_dim (0 for no auxiliary head), auxiliary_level (the map
        that it reads), auxiliary_dropout.
    """

    AUXILIARY = "auxiliary"
    FIELDS = (
        *(*LooksBack.PAST_FIELDS, "dim", "dropout", "dropped"),
        *("auxiliary_dim", "auxiliary_level", "auxiliary_dropout"),
    )
    SEGMENTATION_LOSS = "per_pixel"
    TORCH_NAMES = tmanet_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(layers.DROPPED, config.dropped, "model.decoder.dropped")
        check_auxiliary(config, maps)

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
        self.config = FrozenConfigDict(config)
        widths = config.key_dim, config.value_dim
        self.temporal = TemporalMemoryAttention(maps[-1].width, config.dim, config.past, *widths, remat, **options)
        self.classifier = Classifier(config.dim, num_classes, config.dropout, config.dropped, **options)
        self.auxiliary = AuxiliaryHead(maps, num_classes, config, **options) if config.auxiliary_dim else None

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC` and the `features_NHWC` of which they are made, with the size of the coarsest map, and
        `auxiliary_logits_NHWC`; in training of the frames of `decoded_frames`."""
        features = self.look_back(maps[-1], training)
        maps = [self.of_decoded(x, training) for x in maps]
        return self._outputs(maps, features, self.known_of_decoded(training))

    def _outputs(self, maps: Maps, features_NHWC: layers.Map, training: Training | None) -> dict[str, Array]:
        outputs = {
            "features_NHWC": features_NHWC.astype(jnp.float32),
            "logits_NHWC": self.classifier(features_NHWC, keys_of(training, 0)),
        }
        return outputs if self.auxiliary is None else outputs | self.auxiliary.outputs(maps, training)

    def memory(self, maps: Maps) -> PyTree:
        return self.no_past(maps[-1])

    def look(
        self, maps: Maps, memory: PyTree, mask_NHW: UInt8[Array, "N H W"] | None = None
    ) -> tuple[dict[str, Array], PyTree]:
        features, after = self.next_frame(maps[-1], memory)
        return self._outputs(maps, features, None), after
