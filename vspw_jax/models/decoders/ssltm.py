"""SSLTM, paper 002: OCRNet whose pixels know the frames just before and attend to a far frame's classes, and to all's.

Source: Simultaneously Short- and Long-Term Temporal Modeling for Semi-Supervised Video Semantic Segmentation (Lao et
al., CVPR 2023), of which the supplementary was at hand. Which parts there are is the paper's; how they are joined is a
choice of this codebase, see docs/ssltm.md.
Shapes: N images or views, B clips, T short-term frames, H and W cells, K classes, G clusters of a class, C channels.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.console.errors import UserError, check_divides, choose
from vspw_jax.models import layers
from vspw_jax.models.decoders import ssltm_rows
from vspw_jax.models.decoders.decoder import Maps, Training
from vspw_jax.models.decoders.map_inputs import INPUTS
from vspw_jax.models.decoders.ocrnet import OcrNet, Regions
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal import frame_queue
from vspw_jax.models.temporal.category_context import (
    CLUSTER_UPDATES,
    CONTEXTS,
    REFERENCES,
    Clusters,
    Reference,
    classes_present,
)
from vspw_jax.models.temporal.spatiotemporal_transformer import SpatiotemporalTransformer


class Ssltm(OcrNet):
    """Logits of a frame from its maps, those of the frames just before it, and class vectors of a reference frame.

    A frame's class vectors are of its own features, before the transformer, so they are the same whichever later frame
    reads them, and a frame is encoded once. In training a clip's frames are: the reference, where the context has one,
    the short-term frames, oldest first, and the query, last; frames between reference and short term are not read.
    At inference the short-term features and the reference's class vectors are kept. Before a video's first frame that
    frame is repeated, and it is its own reference. With query context, no blocks and no clusters it is OCRNet.

    Args:
      config: OCRNet's fields, and
        short_term: T, how many frames the transformer sees, the query among them;
        blocks: of the transformer; 0 for none;
        heads, window (frames and cells a side), shift, mlp_ratio: see `SpatiotemporalTransformer`;
        context: a key of `category_context.CONTEXTS`;
        reference, distance: which frame is the reference at inference, see `category_context.Reference`;
        clusters: G, 0 for none;
        cluster_update: a key of `category_context.CLUSTER_UPDATES`;
        momentum: how far a cluster moves in a step under "ema".
    """

    FIELDS = (
        *OcrNet.FIELDS,
        *("short_term", "blocks", "heads", "window", "shift", "mlp_ratio"),
        *("context", "reference", "distance", "clusters", "cluster_update", "momentum"),
    )
    SEGMENTATION_LOSS = "clustered_per_pixel"
    TORCH_NAMES = ssltm_rows.NAMES
    remembers = True

    @classmethod
    def check(cls, config: ConfigDict, maps: tuple[FeatureMap, ...]) -> None:
        super().check(config, maps)
        choose(CONTEXTS, config.context, "model.decoder.context")
        choose(REFERENCES, config.reference, "model.decoder.reference")
        choose(CLUSTER_UPDATES, config.cluster_update, "model.decoder.cluster_update")
        check_divides("model.decoder.heads", config.heads, config.dim)
        if not config.blocks and config.short_term > 1:
            raise UserError(
                f"model.decoder.short_term is {config.short_term}, but model.decoder.blocks is 0: without a "
                "transformer nothing reads the frames before. Set --config.model.decoder.short_term=1, or "
                "--config.model.decoder.blocks=1."
            )
        if config.blocks and config.short_term > config.window[0]:
            window = (config.short_term, *config.window[1:])
            raise UserError(
                f"model.decoder.short_term is {config.short_term}, but windows of the transformer "
                f"(model.decoder.window) have {config.window[0]} frames: the query would not see all frames before it. "
                f"Set --config.model.decoder.window='{window}'."
            )
        if config.shift and config.blocks < 2:
            raise UserError(
                f"model.decoder.shift is True, but model.decoder.blocks is {config.blocks}: every second block shifts "
                "its windows, and there is none. Set --config.model.decoder.shift=False, or "
                "--config.model.decoder.blocks=2."
            )
        if not CONTEXTS[config.context] and not config.clusters:
            raise UserError(
                "model.decoder.context is 'none' and model.decoder.clusters is 0: pixels have nothing to attend to. "
                "Set --config.model.decoder.context=query, which is OCRNet's, or --config.model.decoder.clusters=3."
            )

    @classmethod
    def decoded_frames(cls, config: ConfigDict, frames: int) -> int:
        return 1

    @classmethod
    def least_frames(cls, config: ConfigDict) -> int:
        return config.short_term + cls.reads_reference(config)

    @classmethod
    def reads_reference(cls, config: ConfigDict) -> bool:
        return "reference" in CONTEXTS[config.context]

    @classmethod
    def check_longest(cls, config: ConfigDict, longest: int, place: str) -> None:
        if cls.reads_reference(config) and config.reference == "distance" and config.distance >= longest:
            raise UserError(
                f"model.decoder.distance is {config.distance}, but no video of {place} has a frame so far before "
                f"another: the longest has {longest} frames, so each would have its first for a reference. Set "
                "--config.model.decoder.reference=first, or a smaller --config.model.decoder.distance; where it is "
                "trained already, name its workdir in --config.init_from and another one in --workdir."
            )

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
        options = layers.Options(dtype=dtype, rngs=rngs)
        super().__init__(maps, num_classes, config, remat, **options)
        self.config, self.num_classes = FrozenConfigDict(config), num_classes
        d, h, w = config.window
        self.temporal = (
            SpatiotemporalTransformer(
                config.dim, config.heads, (d, h, w), config.blocks, config.shift, config.mlp_ratio, remat, **options
            )
            if config.blocks
            else None
        )
        count, update = config.clusters, config.cluster_update
        self.clusters = Clusters(num_classes, count, config.dim, update, rngs=rngs) if count else None
        self.reference = Reference(config.reference, config.distance) if self.reads_reference(config) else None

    def __call__(self, maps: Maps, training: Training | None = None) -> dict[str, Array]:
        """As `OcrNet`'s, in training of each clip's last frame; without training each image is a video's first.

        In training with clusters that a loss pulls also `class_vectors_NKC`, `class_present_NK` (by the label) and
        `clusters_KGC`.
        """
        if training is None:
            return self.look(maps, self.memory(maps))[0]
        frames, query = training.frames, training.of_last(1)
        features = self.features(maps, True)
        read = (0, frames - 1) if self.reference else (frames - 1,)
        of_read = lambda x_N: layers.frames_of(x_N, frames, read)
        guess = self.guess([of_read(x) for x in maps], training.of(read))
        vectors = self.class_vectors(of_read(features), guess)
        by_name = {"reference": vectors[:: len(read)], "query": vectors[len(read) - 1 :: len(read)]}
        clip_BTHWC = features.reshape(-1, frames, *features.shape[1:])[:, frames - self.config.short_term :]
        outputs = self._outputs(clip_BTHWC, by_name, guess[len(read) - 1 :: len(read)], query)
        return outputs | self._of_clusters(by_name["query"], query)

    def _outputs(
        self,
        clip_NTHWC: Float[Array, "N T H W C"],
        vectors: dict[str, Regions],
        guess_NhwK: layers.Map,
        training: Training | None,
    ) -> dict[str, Array]:
        """Of the last frames of clips; `vectors` are class vectors by what `CONTEXTS` calls them."""
        features = clip_NTHWC[:, -1] if self.temporal is None else self.temporal(clip_NTHWC)
        regions = [vectors[name] for name in CONTEXTS[self.config.context]]
        if self.clusters is not None:
            regions.append(self.clusters.for_images(vectors["query"]))
        outputs = self.decoded(features, jnp.concatenate(regions, axis=1), training)
        return outputs | {"auxiliary_logits_NHWC": guess_NhwK}

    def _of_clusters(self, vectors_NKC: Regions, training: Training) -> dict[str, Array]:
        """What the loss of clusters reads; clusters that learn by themselves see the vectors, and no loss does."""
        if self.clusters is None or training.label_NHW is None:
            return {}
        present_NK = classes_present(training.label_NHW, self.num_classes)
        if self.clusters.learns_itself:
            self.clusters.learn(vectors_NKC, present_NK, self.config.momentum)
            return {}
        return {
            "class_vectors_NKC": vectors_NKC.astype(jnp.float32),
            "class_present_NK": present_NK,
            "clusters_KGC": self.clusters.rows_KGC[...],
        }

    def memory(self, maps: Maps) -> PyTree:
        size = INPUTS[self.inputs].read(maps, self.align_corners).shape[:3]
        kept = {"is_first_N": jnp.ones(size[0], bool)}
        if self.config.short_term > 1:
            kept["past"] = frame_queue.empty(jnp.zeros((*size, self.config.dim)), self.config.short_term - 1)
        if self.reference:
            kept["reference"] = self.reference.none_yet(jnp.zeros((size[0], self.num_classes, self.config.dim)))
        return kept

    def look(
        self, maps: Maps, memory: PyTree, mask_NHW: UInt8[Array, "N H W"] | None = None
    ) -> tuple[dict[str, Array], PyTree]:
        features, guess = self.features(maps, False), self.guess(maps, None)
        vectors, is_first_N = {"query": self.class_vectors(features, guess)}, memory["is_first_N"]
        after, clip_NTHWC = {"is_first_N": jnp.zeros_like(is_first_N)}, features[:, None]
        if "past" in memory:
            past = frame_queue.begun(memory["past"], features, is_first_N)
            clip_NTHWC = jnp.concatenate([past.astype(features.dtype), clip_NTHWC], axis=1)
            after["past"] = frame_queue.pushed(past, features)
        if self.reference:
            found = self.reference.next_frame(vectors["query"], memory["reference"], is_first_N)
            vectors["reference"], after["reference"] = found
        return self._outputs(clip_NTHWC, vectors, guess, None), after
