"""What the decoders A and B of paper 001 share: UperNet's features, joined with what a feature memory knows.

Each pixel reads the memory by a mask, P in the paper. Where the mask has no class, as before a video's first frame, the
first pass takes its place: a head on the representations, trained for this.
Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 3.
Shapes: N images, H and W cells of the finest map, h and w of the memory's, C channels, K classes.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError, choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import memory_rows
from vspw_jax.models.decoders.decoder import Maps, Training
from vspw_jax.models.decoders.reads_memory import Head, Mask, ReadsMemory, mask_of_labels, weights_of
from vspw_jax.models.decoders.upernet import Pyramid
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.feature_memory import FeatureMemory
from vspw_jax.models.temporal.memory_attention import MemoryAttention


class Space(NamedTuple):
    """What the representations are made of: all maps or the last alone, behind a 3x3 convolution or as they are."""

    all_maps: bool
    convolved: bool


SPACES = {"bottleneck": Space(False, True), "pyramid": Space(True, True), "backbone": Space(False, False)}
"""By `model.decoder.memory_space`."""


class MemoryDecoder(ReadsMemory, Pyramid):
    """UperNet with a feature memory. A subclass says which mask a frame reads it by, and what reads it.

    Args:
      config: UperNet's fields, and
        level: the map whose size the memory's maps have;
        memory_dim: width of the representations and of what is classified;
        memory_space: a key of `SPACES`, what the representations are: the last map behind a convolution, all maps
          behind one, or the last map itself, whose width `memory_dim` must then be;
        mask: a key of `MASKS`;
        first_sight: a key of `FIRST_SIGHTS`;
        momentum, momentum_follows_rate: m of equation 1, times the learning rate's share of the configured one or not;
        truth_steps: in so many first steps the truth takes the mask's place;
        truth_epochs: not read here, see `training/length.py`.
    """

    FIELDS: ClassVar[tuple[str, ...]] = (
        *Pyramid.FIELDS,
        *ReadsMemory.MEMORY_FIELDS,
        *("level", "memory_dim", "memory_space", "truth_steps", "truth_epochs"),
    )
    TORCH_NAMES = memory_rows.NAMES
    remembers = True
    reads_masks = True

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(SPACES, config.memory_space, "model.decoder.memory_space")
        if config.level not in range(len(maps)):
            raise UserError(
                f"model.decoder.level is {config.level}: expected one of the encoder's maps, 0 to {len(maps) - 1}, "
                "fine to coarse. The memory's maps get its size."
            )
        if config.memory_dim % 2:
            raise UserError(f"model.decoder.memory_dim is {config.memory_dim}: expected an even number.")
        if not SPACES[config.memory_space].convolved and config.memory_dim != maps[-1].width:
            raise UserError(
                f"model.decoder.memory_dim is {config.memory_dim}: expected {maps[-1].width}, the width of the "
                f"encoder's last map, whose cells the memory holds with memory_space {config.memory_space!r}. Set "
                f"--config.model.decoder.memory_dim={maps[-1].width}, or "
                "--config.model.decoder.memory_space=bottleneck."
            )

    @classmethod
    def features_width(cls, config: ConfigDict) -> int:
        return config.memory_dim

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
        dim, heads = config.memory_dim, (num_classes, config.dropout)
        self.config, self.num_classes = FrozenConfigDict(config), num_classes
        self._add_pyramid(maps, config, **options)
        read = maps if SPACES[config.memory_space].all_maps else maps[-1:]
        convolved = SPACES[config.memory_space].convolved
        width = sum(x.width for x in read)
        self.represent_conv = layers.ConvNormRelu(width, dim, 3, **options) if convolved else None
        self.first_head = Head(dim, *heads, **options)
        self.feature_memory = FeatureMemory(num_classes, dim)
        self.attention = MemoryAttention(dim, remat, **options)
        self.join_conv = layers.ConvNormRelu(config.dim + dim, dim, 3, **options)
        self.head = Head(dim, *heads, **options)
        self._add_auxiliary(maps, num_classes, config, **options)

    def represent(self, maps: Maps, train: bool) -> layers.Map:
        """R of the paper: an image's representations of its pixels, with the size of the map at `level`.

        MCIBI's bottleneck reads the last map, which a dilated ResNet has at 1/8. BEiT's is at 1/32.
        """
        read = maps if SPACES[self.config.memory_space].all_maps else maps[-1:]
        size = maps[self.config.level].shape[1:3]
        x_NhwC = jnp.concatenate([layers.resize_bilinear(x, *size) for x in read], axis=-1)
        return x_NhwC if self.represent_conv is None else self.represent_conv(x_NhwC, train)

    def blank(self, x_NhwC: layers.Map) -> Mask:
        """Masks of the size of a map, without a class anywhere."""
        if self.config.mask == "hard":
            return jnp.full(x_NhwC.shape[:3], VOID, jnp.uint8)
        return jnp.zeros((*x_NhwC.shape[:3], self.num_classes))

    def read(
        self,
        wide_NHWC: layers.Map,
        features_NhwC: layers.Map,
        first_pass_NhwK: layers.Map,
        mask: Mask,
        train: bool,
        keys_N: layers.Keys = None,
    ) -> tuple[layers.Map, layers.Map]:
        """(what is classified, logits) of images whose pixels read the memory by a mask.

        Args:
          wide_NHWC: UperNet's features, C_wi of the paper.
          features_NhwC: what reads.
          first_pass_NhwK: logits.
        """
        weights = weights_of(mask, self.masks(first_pass_NhwK, features_NhwC), self.num_classes)
        context = self.attention(features_NhwC, self.feature_memory.recall(weights, features_NhwC), train)
        joined = self.join(wide_NHWC, context, train)
        return joined, self.head(joined, train, keys_N)

    def join(self, wide_NHWC: layers.Map, context_NhwC: layers.Map, train: bool) -> layers.Map:
        """What is classified: C_wi beside C_bi, which gets its size."""
        context = layers.resize_bilinear(context_NhwC, *wide_NHWC.shape[1:3])
        return self.join_conv(jnp.concatenate([wide_NHWC, context], axis=-1), train)

    def outputs(
        self, maps: Maps, joined: layers.Map, logits: layers.Map, first_pass: layers.Map, training: Training | None
    ) -> dict[str, Array]:
        """What `__call__` and `look` give; in training the memory's rows, classified, too."""
        outputs = {
            "features_NHWC": joined.astype(jnp.float32),
            "logits_NHWC": logits,
            "first_pass_logits_NHWC": first_pass,
            **self.auxiliary_outputs(maps, training),
        }
        return outputs | (self.row_outputs(joined.dtype) if training else {})

    def given(self, mask_NHW: UInt8[Array, "N H W"], features_NhwC: layers.Map) -> Mask:
        """Train ids as masks for the memory's maps."""
        mask = mask_of_labels(mask_NHW, *features_NhwC.shape[1:3])
        return mask if self.config.mask == "hard" else jax.nn.one_hot(mask, self.num_classes)

    def truth(self, features_NhwC: layers.Map, training: Training) -> Mask | None:
        """The labels as masks for the memory's maps; None without labels or where they never take a mask's place."""
        if training.label_NHW is None or not self.config.truth_steps:
            return None
        return self.given(training.label_NHW.astype(jnp.uint8), features_NhwC)

    def or_truth(self, mask: Mask, truth: Mask | None, training: Training) -> Mask:
        """The mask that a frame in training reads by; void is no truth, so that it stays the mask's there."""
        if truth is None:
            return mask
        is_hard = self.config.mask == "hard"
        known = truth != VOID if is_hard else (truth > 0).any(axis=-1, keepdims=True)
        return jnp.where(known & (training.step < self.config.truth_steps), truth, mask)

    def memory(self, maps: Maps) -> PyTree:
        return {"mask": self.blank(maps[self.config.level])}
