"""Mask2Former: a pixel decoder and a transformer decoder whose queries attend inside their own masks.

Source: czczup/ViT-Adapter segmentation/mmseg_custom/models/decode_heads/mask2former_head.py (after mmdet);
Mask2Former, arXiv 2112.01527, section 3.2.
Shapes: N images, L predictions, Q queries, S tokens of a memory, G heads, C width, K classes + no-object, H W of the
finest map (1/4 in the source).
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, check_divides
from vspw_jax.models import layers
from vspw_jax.models.decoders import mask2former_rows
from vspw_jax.models.decoders.decoder import Decoder, Maps, Training
from vspw_jax.models.decoders.pixel_decoder import PixelDecoder, sine_position_encoding
from vspw_jax.models.encoders.encoder import FeatureMap

Queries = Float[Array, "N Q C"]
Mask = Bool[Array, "N Q S"]


class MultiHeadAttention(nnx.Module):
    """torch.nn.MultiheadAttention with separate projections; `mask_NQS` is True where a query may look."""

    def __init__(self, dim: int, heads: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        linear = functools.partial(layers.linear, kernel_init=layers.xavier_uniform, dtype=dtype, rngs=rngs)
        self.heads = heads
        self.query, self.key, self.value, self.out = (linear(dim, dim) for _ in range(4))

    def __call__(
        self, query_NQC: Queries, key_NSC: layers.Tokens, value_NSC: layers.Tokens, mask_NQS: Mask | None = None
    ) -> Queries:
        query, key, value = (
            project(x).reshape(*x.shape[:2], self.heads, -1)
            for project, x in ((self.query, query_NQC), (self.key, key_NSC), (self.value, value_NSC))
        )
        mask = None if mask_NQS is None else mask_NQS[:, None]
        output = jax.nn.dot_product_attention(query, key, value, mask=mask)
        return self.out(output.reshape(query_NQC.shape))


class DecoderLayer(nnx.Module):
    """Post-norm layer in Mask2Former's order: masked cross-attention, self-attention, feed-forward."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        options = layers.Options(dtype=dtype, rngs=rngs)
        self.cross_attn = MultiHeadAttention(dim, heads, **options)
        self.norm1 = layers.layer_norm(dim, 1e-5, **options)
        self.self_attn = MultiHeadAttention(dim, heads, **options)
        self.norm2 = layers.layer_norm(dim, 1e-5, **options)
        self.fc1 = layers.linear(dim, ffn_dim, kernel_init=layers.xavier_uniform, **options)
        self.fc2 = layers.linear(ffn_dim, dim, kernel_init=layers.xavier_uniform, **options)
        self.norm3 = layers.layer_norm(dim, 1e-5, **options)

    def __call__(
        self,
        x_NQC: Queries,
        query_embed_QC: Float[Array, "Q C"],
        memory_NSC: layers.Tokens,
        position_SC: Float[Array, "S C"],
        mask_NQS: Mask,
    ) -> Queries:
        attended = self.cross_attn(x_NQC + query_embed_QC, memory_NSC + position_SC, memory_NSC, mask_NQS)
        x = self.norm1(x_NQC + attended)
        x = self.norm2(x + self.self_attn(x + query_embed_QC, x + query_embed_QC, x))
        return self.norm3(x + self.fc2(jax.nn.relu(self.fc1(x))))


def attention_mask(mask_logits_NQHW: Float[Array, "N Q H W"], shape: layers.Size) -> Mask:
    """Where each query may look on a memory of `shape`: True where its mask's probability is at least 0.5.

    A query whose mask is empty looks everywhere. No gradient passes.
    """
    logits = layers.resize_bilinear(mask_logits_NQHW.transpose(0, 2, 3, 1), *shape)
    inside_NQS = jax.lax.stop_gradient(layers.to_tokens(logits).transpose(0, 2, 1)) >= 0
    return inside_NQS | ~inside_NQS.any(axis=-1, keepdims=True)


class Mask2Former(Decoder):
    """The encoder's maps to class and mask logits of every query: before the decoder layers and after each of them.

    Args:
      maps: of any width. The finest makes the masks; queries attend to the others in turn.
      num_classes: real classes; the class logits have one more, "no object", last.
      config: dim, heads, points, encoder_ffn_dim, ffn_dim, encoder_layers, decoder_layers, num_queries, query_std,
        norm_groups.
      remat: a key of `layers.REMAT_POLICIES`.
    """

    FIELDS = (
        *("dim", "heads", "points", "encoder_ffn_dim", "ffn_dim", "encoder_layers", "decoder_layers"),
        *("num_queries", "query_std", "norm_groups"),
    )
    SEGMENTATION_LOSS = "mask_classification"
    STACKED = {"pixel_decoder/encoder": 1}
    EMBEDDINGS = ("mask_embed", "cls_embed", "level_embed", "query_embed", "query_feat")
    TORCH_NAMES = mask2former_rows.NAMES

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        check_divides("model.decoder.heads", config.heads, config.dim)
        check_divides("model.decoder.norm_groups", config.norm_groups, config.dim)
        if len(maps) < 2:
            raise UserError(f"Mask2Former needs two maps or more; this encoder gives {len(maps)}.")

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
        dim = config.dim
        self.remat = remat
        self.pixel_decoder = PixelDecoder([x.width for x in maps], config, remat, **options)
        self.layers = nnx.List(
            [DecoderLayer(dim, config.heads, config.ffn_dim, **options) for _ in range(config.decoder_layers)]
        )
        self.post_norm = layers.layer_norm(dim, 1e-5, **options)
        queries = lambda: nnx.Param(config.query_std * jax.random.normal(rngs.params(), (config.num_queries, dim)))
        self.query_embed, self.query_feat = queries(), queries()
        self.level_embed = nnx.Param(jax.random.normal(rngs.params(), (len(maps) - 1, dim)))
        linear = functools.partial(layers.linear, kernel_init=layers.torch_uniform, **options)
        self.cls_embed = linear(dim, num_classes + 1)
        self.mask_embed = nnx.List([linear(dim, dim) for _ in range(3)])

    def _predict(self, x_NQC: Queries, mask_feature_NHWC: layers.Map) -> tuple[Array, Array]:
        x = self.post_norm(x_NQC)
        class_logits = self.cls_embed(x)
        for layer in self.mask_embed[:-1]:
            x = jax.nn.relu(layer(x))
        mask_logits = jnp.einsum("nqc,nhwc->nqhw", self.mask_embed[-1](x), mask_feature_NHWC)
        return class_logits.astype(jnp.float32), mask_logits.astype(jnp.float32)

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """Logits of the last prediction, and of all L = decoder layers + 1 predictions as `layer_...`; C is K here.

        The mask logits are made of `features_NHWC`; both have the size of the finest map.
        The network has neither batch statistics nor randomness: `training` changes nothing.
        """
        mask_feature, memories = self.pixel_decoder(maps)
        dtype = mask_feature.dtype
        shapes = [(memory.shape[1], memory.shape[2]) for memory in memories]
        tokens = [
            layers.to_tokens(memory) + embed
            for memory, embed in zip(memories, self.level_embed[...].astype(dtype), strict=True)
        ]
        positions = [sine_position_encoding(*shape, mask_feature.shape[-1]).astype(dtype) for shape in shapes]
        query_embed = self.query_embed[...].astype(dtype)
        x = jnp.broadcast_to(self.query_feat[...].astype(dtype), (mask_feature.shape[0], *query_embed.shape))
        predictions = [self._predict(x, mask_feature)]
        for number, layer in enumerate(self.layers):
            level = number % len(memories)
            mask = attention_mask(predictions[-1][1], shapes[level])
            x = layers.rematerialised(layer, self.remat)(x, query_embed, tokens[level], positions[level], mask)
            predictions.append(self._predict(x, mask_feature))
        class_logits, mask_logits = (jnp.stack(logits) for logits in zip(*predictions, strict=True))
        return {
            "class_logits_NQC": class_logits[-1],
            "mask_logits_NQHW": mask_logits[-1],
            "layer_class_logits_LNQC": class_logits,
            "layer_mask_logits_LNQHW": mask_logits,
            "features_NHWC": mask_feature.astype(jnp.float32),
        }
