"""Decoder A of paper 001: a frame reads the feature memory by the mask that was predicted of the frame before it.

Source: Memory Based Video Scene Parsing (Jin et al., 2021), section 3 and figure 1.
Shapes: B clips, N images, H and W cells of the finest map, h and w of the memory's, C channels, K classes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree, UInt8
from ml_collections import ConfigDict

from vspw_jax.models import layers
from vspw_jax.models.decoders.decoder import Maps, Training, keys_of
from vspw_jax.models.decoders.memory_decoder import MemoryDecoder


class MemoryA(MemoryDecoder):
    """Frames one after the other: each reads by its predecessor's mask, the first one by its own first pass."""

    @classmethod
    def least_frames(cls, config: ConfigDict) -> int:
        return 2

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """`logits_NHWC` and their `features_NHWC`; `first_pass_logits_NHWC` as large as the memory's maps;
        `auxiliary_logits_NHWC`; in training `memory_logits_KC` of the memory's rows, and `memory_valid_K`.

        Without training no image is another's predecessor.
        """
        train = training is not None
        wide, features = self.fuse(maps, train), self.represent(maps, train)
        first_pass = self.first_head(features, train, keys_of(training, 2))
        if training:
            joined, logits = self._in_order(wide, features, first_pass, training)
        else:
            joined, logits = self.read(wide, features, first_pass, self.blank(features), train)
        outputs = self.outputs(maps, joined, logits, first_pass, training)
        if training:
            self.learn(features, training)
        return outputs

    def _in_order(
        self, wide_NHWC: layers.Map, features_NhwC: layers.Map, first_pass_NhwK: layers.Map, training: Training
    ) -> tuple[layers.Map, layers.Map]:
        """(what is classified, logits), clips side by side, one frame of each after the other."""
        of_frame = lambda x, frame: x.reshape(-1, training.frames, *x.shape[1:])[:, frame]
        truth, keys, made = self.truth(features_NhwC, training), training.keys(0), []
        mask = self.blank(of_frame(features_NhwC, 0))
        for frame in range(training.frames):
            shown = None if truth is None else of_frame(truth, max(frame - 1, 0))
            wide, features, first_pass = (of_frame(x, frame) for x in (wide_NHWC, features_NhwC, first_pass_NhwK))
            drawn = None if keys is None else of_frame(keys, frame)
            made.append(self.read(wide, features, first_pass, self.or_truth(mask, shown, training), True, drawn))
            mask = self.masks(made[-1][1], features_NhwC)
        joined, logits = (jnp.stack(x, axis=1) for x in zip(*made, strict=True))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (joined, logits))

    def look(
        self, maps: Maps, memory: PyTree, mask_NHW: UInt8[Array, "N H W"] | None = None
    ) -> tuple[dict[str, Array], PyTree]:
        features = self.represent(maps, False)
        first_pass = self.first_head(features, False)
        mask = memory["mask"] if mask_NHW is None else self.given(mask_NHW, features)
        joined, logits = self.read(self.fuse(maps, False), features, first_pass, mask, False)
        return self.outputs(maps, joined, logits, first_pass, None), {"mask": self.masks(logits, features)}
