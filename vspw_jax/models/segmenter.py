"""The segmentation network: an encoder and a decoder named in the config.

An encoder makes maps of images. A decoder makes a dict of float32 arrays of the maps; each name ends in its axes.

Shapes: B clips, T frames, N = B*T images, H and W pixels or cells, Q queries, C channels or classes, L predictions.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8
from ml_collections import ConfigDict, FrozenConfigDict

from vspw_jax.console.errors import UserError, check_fields, choose
from vspw_jax.models import layers
from vspw_jax.models.banks.class_bank import ClassBank
from vspw_jax.models.banks.region_bank import RegionBank
from vspw_jax.models.decoders.decoder import Decoder, Training
from vspw_jax.models.decoders.deeplabv3 import DeepLabV3
from vspw_jax.models.decoders.fcn import Fcn
from vspw_jax.models.decoders.mask2former import Mask2Former
from vspw_jax.models.decoders.mcibi import Mcibi
from vspw_jax.models.decoders.memory_a import MemoryA
from vspw_jax.models.decoders.memory_b import MemoryB
from vspw_jax.models.decoders.ocrnet import OcrNet
from vspw_jax.models.decoders.segformer import SegFormer
from vspw_jax.models.decoders.ssltm import Ssltm
from vspw_jax.models.decoders.tmanet import TMANet
from vspw_jax.models.decoders.upernet import UperNet
from vspw_jax.models.encoders.beit_pyramid import BeitPyramid
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap
from vspw_jax.models.encoders.eva import Eva
from vspw_jax.models.encoders.eva01_adapter import Eva01Adapter
from vspw_jax.models.encoders.focalnet import FocalNet
from vspw_jax.models.encoders.hrnet import HRNet
from vspw_jax.models.encoders.internimage import InternImage
from vspw_jax.models.encoders.mit import MiT
from vspw_jax.models.encoders.resnet import ResNet
from vspw_jax.models.encoders.swin import Swin
from vspw_jax.models.encoders.vit_adapter import ViTAdapter
from vspw_jax.models.projection_head import ProjectionHead

ENCODERS: dict[str, type[Encoder]] = {
    "eva": Eva,
    "eva01_adapter": Eva01Adapter,  # Behind EVA-02: files of both have learned positions.
    "beit": BeitPyramid,
    "focalnet": FocalNet,
    "hrnet": HRNet,
    "internimage": InternImage,
    "mit": MiT,
    "resnet": ResNet,
    "swin": Swin,
    "vit_adapter": ViTAdapter,
}
DECODERS: dict[str, type[Decoder]] = {
    "deeplabv3": DeepLabV3,
    "segformer": SegFormer,
    "fcn": Fcn,
    "mask2former": Mask2Former,
    "mcibi": Mcibi,
    "memory_b": MemoryB,
    "memory_a": MemoryA,
    "ssltm": Ssltm,
    "ocrnet": OcrNet,
    "tmanet": TMANet,
    "upernet": UperNet,
}
"""Where files of one could be taken for another's, that with more parts stands first: FCN's names are among DeepLabV3's
and SegFormer's, decoder A's among B's, OCRNet's among SSLTM's."""
BANKS: dict[str, type[ClassBank] | type[RegionBank]] = {"class": ClassBank, "region": RegionBank}
"""By `config.bank.kind`, which may also be "none": what is remembered of projected features of all training images."""
PROJECTION_INPUTS = ("encoder", "decoder")
"""What the projection head reads: a map of the encoder, or the features that the decoder classifies."""
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
Outputs = dict[str, Any]
"""Arrays by name, and "encoder", a list of arrays."""


def encoder_of(config: ConfigDict) -> type[Encoder]:
    """The class of `config.model`'s encoder."""
    return ENCODERS[config.encoder.name]


def decoder_of(config: ConfigDict) -> type[Decoder]:
    """The class of `config.model`'s decoder."""
    return DECODERS[config.decoder.name]


def maps_of(config: ConfigDict) -> tuple[FeatureMap, ...]:
    """The maps that the encoder of `config.model` gives, fine to coarse."""
    return encoder_of(config).maps(config.encoder)


def stacked(config: ConfigDict) -> dict[str, int]:
    """Paths of the network's variables that are stacked for a scan, and how many leading axes are stacked."""
    parts: dict[str, type[Encoder] | type[Decoder]] = {"encoder": encoder_of(config), "decoder": decoder_of(config)}
    return {f"{part}/{path}": axes for part, kind in parts.items() for path, axes in kind.STACKED.items()}


def has_projection(config: ConfigDict) -> bool:
    """Whether the network of `config.model` has a projection head for contrastive losses."""
    return bool("projection" in config and config.projection.dim)


def has_bank(config: ConfigDict) -> bool:
    """Whether the network of `config.model` keeps a bank of projected features."""
    return "bank" in config and config.bank.kind != "none"


def projected_width(config: ConfigDict) -> int:
    """Channels of what the projection head reads."""
    if config.projection.input == "decoder":
        return decoder_of(config).features_width(config.decoder)
    return maps_of(config)[config.projection.level].width


def check(config: ConfigDict) -> None:
    """Raises UserError where `config.model` makes no network: an unknown name, an impossible size or level."""
    choose(ENCODERS, config.encoder.name, "model.encoder.name")
    choose(DECODERS, config.decoder.name, "model.decoder.name")
    choose(DTYPES, config.dtype, "model.dtype")
    choose(layers.REMAT_POLICIES, config.remat, "model.remat")
    if len(config.image_size) != 2:
        raise UserError(
            f"model.image_size is {tuple(config.image_size)}: expected height and width, as in "
            "--config.model.image_size='(480, 480)'. Give this flag once."
        )
    check_fields("model.encoder", config.encoder, encoder_of(config).FIELDS, "configs/parts/models.py")
    check_fields("model.decoder", config.decoder, decoder_of(config).FIELDS, "configs/parts/models.py")
    encoder_of(config).check(config.encoder, tuple(config.image_size))
    maps = maps_of(config)
    decoder_of(config).check(config.decoder, maps)
    if has_projection(config):
        choose(dict.fromkeys(PROJECTION_INPUTS), config.projection.input, "model.projection.input")
        if config.projection.level not in range(len(maps)):
            raise UserError(f"model.projection.level is {config.projection.level}: expected 0 to {len(maps) - 1}.")
    if "bank" in config:
        choose(BANKS | {"none": None}, config.bank.kind, "model.bank.kind")
    if has_bank(config) and not has_projection(config):
        raise UserError(
            "The network has a bank of projected features, but no projection: model.projection.dim is 0 or missing. "
            "Set --config.model.projection.dim=256, or --config.model.bank.kind=none."
        )


class Segmenter(nnx.Module):
    """Encoder and decoder over clips; frames are independent of each other here."""

    def __init__(self, config: ConfigDict, rngs: nnx.Rngs) -> None:
        check(config)
        self.config = FrozenConfigDict(config)
        options = layers.Options(dtype=DTYPES[config.dtype], rngs=rngs)
        self.encoder = encoder_of(config)(config.encoder, config.image_size, config.remat, **options)
        self.decoder = decoder_of(config)(maps_of(config), config.num_classes, config.decoder, config.remat, **options)
        if has_projection(config):
            self.projection = ProjectionHead(projected_width(config), config.projection, **options)
        if has_bank(config):  # A task fills and reads it.
            self.bank = BANKS[config.bank.kind](config.num_classes, config.projection.dim, config.bank)

    def __call__(
        self,
        image_BTHWC: Float[Array, "B T H W 3"],
        train: bool = False,
        key_B: Key[Array, " B"] | None = None,
        label_BTHW: Int[Array, "B T H W"] | None = None,
        step: int | Int[Array, ""] = 0,
        rate: float | Float[Array, ""] = 1.0,
    ) -> Outputs:
        """Runs the network.

        Args:
          image_BTHWC: normalised float32 frames of the model's image_size.
          train: True takes batch statistics from the batch (averaged over the mapped `DATA_AXES`, which must be bound)
            and updates their running means in place. False uses the running means.
          key_B: a JAX key for each clip, for stochastic depth, drop-out and what a decoder draws; None for none.
          label_BTHW, step, rate: in training alone, for decoders that ask for them; see `Training`.

        Returns:
          A dict, all float32: `encoder`, its maps BTHWC fine to coarse, and what the decoder gives, with the size of
          the finest map unless said otherwise. Every decoder: `features_BTHWC`, of which its masks or logits are made.
          Mask2Former: `class_logits_BTQC` (last class = no object), `mask_logits_BTQHW`, and both after every decoder
          layer as `layer_class_logits_LBTQC` and `layer_mask_logits_LBTQHW`. UperNet, DeepLabV3, FCN, OCRNet,
          SegFormer: `logits_BTHWC`, and with an auxiliary head `auxiliary_logits_BTHWC` with the size of its map. The
          features and logits of DeepLabV3, and of FCN and OCRNet unless they join all maps, have the size of the
          coarsest map: losses resize logits of any size to the labels, and `class_scores` to the finest map. With a
          projection head, in training: `projection_BTHWC`. With clusters, in training: `class_vectors_BTKC`,
          `class_present_BTK` and `clusters_KGC`. In training an output may have fewer frames, the last ones of each
          clip; see `Decoder.decoded_frames`.
        """
        clips = image_BTHWC.shape[:2]
        keys_N = None
        if key_B is not None:
            keys_N = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(clips[1])))(key_B)
            keys_N = keys_N.reshape(-1)
        images = image_BTHWC.reshape(-1, *image_BTHWC.shape[2:])
        maps = self.encoder(images, train, layers.fold_keys(keys_N, 0) if self.encoder.drop_path else None)
        training = None
        if train:
            label_NHW = None if label_BTHW is None else label_BTHW.reshape(-1, *label_BTHW.shape[2:])
            training = Training(clips[1], layers.fold_keys(keys_N, 1), label_NHW, rate, step)
        decoded = self.decoder(maps, training)
        if train and has_projection(self.config):
            decoded["projection_NHWC"] = self.projection(self._projected(maps, decoded), train).astype(jnp.float32)
        outputs: Outputs = dict(_by_clip(name, x, clips) for name, x in decoded.items())
        outputs["encoder"] = [x.reshape(*clips, *x.shape[1:]).astype(jnp.float32) for x in maps]
        return outputs

    @property
    def remembers(self) -> bool:
        """Whether a frame's result depends on the frames before it; then call `look` for one frame after the other."""
        return self.decoder.remembers

    def memory(self, image_NHWC: Float[Array, "N H W 3"]) -> PyTree:
        """What is remembered of N views of a video before its first frame; of `image_NHWC` only the shape counts."""
        return self.decoder.memory(self.encoder(image_NHWC))

    def look(
        self,
        image_NHWC: Float[Array, "N H W 3"],
        memory: PyTree,
        mask_NHW: UInt8[Array, "N H W"] | None = None,
    ) -> tuple[dict[str, Array], PyTree]:
        """The outputs of `__call__`, with T = 1, for the next frame of N views, and what is remembered after it.

        `mask_NHW` are masks of the same views by an earlier stage, for decoders that read masks; see `Decoder.look`.
        """
        decoded, memory = self.decoder.look(self.encoder(image_NHWC), memory, mask_NHW)
        return dict(_by_clip(name, x, (len(image_NHWC), 1)) for name, x in decoded.items()), memory

    def _projected(self, maps: Sequence[layers.Map], decoded: dict[str, Array]) -> layers.Map:
        """What the projection head reads."""
        projection = self.config.projection
        return decoded["features_NHWC"] if projection.input == "decoder" else maps[projection.level]


def _by_clip(name: str, x: Array, clips: tuple[int, ...]) -> tuple[str, Array]:
    """Splits the axis N of a decoder's output into B and T; its name says where N is: `logits_NHWC`, `logits_BTHWC`.

    Without an N it is the decoder's own, whatever the clips, and stays.
    """
    stem, axes = name.rsplit("_", 1)
    if "N" not in axes:
        return name, x
    axis = axes.index("N")
    return f"{stem}_{axes.replace('N', 'BT')}", x.reshape(*x.shape[:axis], clips[0], -1, *x.shape[axis + 1 :])


def build(config: ConfigDict, key: Key[Array, ""]) -> Segmenter:
    """The network of `config.model`, its weights drawn from `key`."""
    return Segmenter(config, layers.weight_keys(key))


def cell_scores(outputs: Outputs) -> Float[Array, "B T h w K"]:
    """Scores of the real classes, with the size of the logits, from a network's outputs.

    The softmax of per-pixel logits; for a query decoder, the sum over queries of class softmax times mask sigmoid.
    """
    if "logits_BTHWC" in outputs:
        return jax.nn.softmax(outputs["logits_BTHWC"], axis=-1)
    probabilities = jax.nn.softmax(outputs["class_logits_BTQC"], axis=-1)[..., :-1]
    return jnp.einsum("btqc,btqhw->bthwc", probabilities, jax.nn.sigmoid(outputs["mask_logits_BTQHW"]))


def class_scores(outputs: Outputs) -> Float[Array, "B T h w K"]:
    """`cell_scores` with the size of the finest map, from a network's outputs.

    Per-pixel logits of a coarser map are resized before the softmax. mmseg resizes logits too; to resize the scores in
    their place cost the demo of DeepLabV3, whose logits are at 1/8, 0.9 mIoU.
    """
    logits_BTHWC = outputs.get("logits_BTHWC")
    if logits_BTHWC is not None and "encoder" in outputs:
        clips, size = logits_BTHWC.shape[:2], outputs["encoder"][0].shape[2:4]
        resized = layers.resize_bilinear(logits_BTHWC.reshape(-1, *logits_BTHWC.shape[2:]), *size)
        outputs = {**outputs, "logits_BTHWC": resized.reshape(*clips, *resized.shape[1:])}
    return cell_scores(outputs)
