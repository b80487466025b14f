"""The files that can be read: how each names its tensors, and what in it is not for us.

A new kind of file is one function of rows (`name_maps.py`) and one entry in `NAMINGS`.
"""

import dataclasses
import re
from collections.abc import Callable

from vspw_jax.console.errors import UserError
from vspw_jax.interop import hugging_face_names, name_maps


@dataclasses.dataclass(frozen=True)
class Naming:
    """One way to name a network's tensors.

    Attributes:
      title: for people.
      marks: pattern of a name that such files have and those after them in `NAMINGS` have not.
      rows: from (config.model, names in a file) to `Row`s; the names settle the form where there are several,
        none give the form that we write.
      wrapper: the key under which the tensors stand in a .pth that we write.
      whole: all of a network is in such a file; else what is not stays as initialised.
      position_index: such files hold the buffers relative_position_index.
      left_out: patterns of names that are not read, each with the reason.
    """

    title: str
    marks: str
    rows: Callable
    wrapper: str | None = None
    whole: bool = False
    position_index: bool = False
    left_out: dict = dataclasses.field(default_factory=dict)


def _mmseg(config, names):
    return list(name_maps.mmseg(config))


def _unilm(config, names):
    shared = "rel_pos_bias.relative_position_bias_table"
    rows = name_maps.unilm(config)
    return list(name_maps.share_positions(rows, shared) if shared in names else rows)


def _hugging_face_beit(config, names):
    prefixes = [name.removesuffix("embeddings.cls_token") for name in names if name.endswith("embeddings.cls_token")]
    prefix = prefixes[0] if prefixes else ""
    version = hugging_face_names.version(names)
    shared = prefix + version["shared table"]
    rows = hugging_face_names.beit(prefix, version, config)
    return list(name_maps.share_positions(rows, shared) if shared in names else rows)


def _require(config, title, encoder, decoder):
    if (config.encoder.name, config.decoder.name) != (encoder, decoder):
        raise UserError(
            f"{title} of Hugging Face starts a network of {encoder} and {decoder}; this one is of "
            f"{config.encoder.name} and {config.decoder.name}."
        )


def _hugging_face_upernet(config, names):
    _require(config, "A BEiT with UperNet", "beit", "upernet")
    names = names or ("beit.embeddings.cls_token",)
    rows = hugging_face_names.beit_upernet(hugging_face_names.version(names), config)
    return _hugging_face_beit(config, names) + list(rows)


def _hugging_face_mask2former(config, names):
    _require(config, "A Mask2Former", "vit_adapter", "mask2former")
    names = names or ("model.pixel_level_module.encoder.embeddings.cls_token",)
    return _hugging_face_beit(config, names) + list(hugging_face_names.mask2former("model.", config))


_INDEX = {r"relative_position_index$": "position indices follow from the crop; export makes them anew"}
_PRETRAINING = "of a pretraining or image classification head, which a segmentation network has not"

NAMINGS = {
    "hugging_face_upernet": Naming(
        title="Hugging Face's (BEiT with UperNet)",
        marks=r"^decode_head\.classifier\.",
        rows=_hugging_face_upernet,
        whole=True,
        left_out=_INDEX,
    ),
    "mmseg": Naming(
        title="mmsegmentation's (ViT-Adapter, BEiT UperNet)",
        marks=r"^(backbone|decode_head)\.",
        rows=_mmseg,
        wrapper="state_dict",
        whole=True,
        position_index=True,
        left_out=_INDEX | {r"^decode_head\.conv_seg\.": "a layer that older releases held and never used"},
    ),
    "unilm": Naming(
        title="unilm's (BEiT, BEiTv2)",
        marks=r"^blocks\.\d+\.",
        rows=_unilm,
        wrapper="model",
        position_index=True,
        left_out=_INDEX | {r"^(fc_norm|norm|head|lm_head)\.|^mask_token$": _PRETRAINING},
    ),
    "hugging_face_mask2former": Naming(
        title="Hugging Face's (Mask2Former)",
        marks=r"^model\.(pixel_level_module|transformer_module)\.",
        rows=_hugging_face_mask2former,
        left_out=_INDEX
        | {
            r"^criterion\.empty_weight$": "class weights of the loss, which here are config.loss.segmentation",
            r"^model\.pixel_level_module\.encoder\.fpn": "the plain BEiT's pyramid, in whose place the adapter stands",
        },
    ),
    "hugging_face_beit": Naming(
        title="Hugging Face's (BEiT)",
        marks=r"(^|\.)embeddings\.cls_token$",
        rows=_hugging_face_beit,
        left_out=_INDEX
        | {r"^(beit\.)?(pooler\.layernorm|layernorm|classifier|lm_head)\.|embeddings\.mask_token$": _PRETRAINING},
    ),
}
"""By the name that `convert.save_torch` takes."""


def recognise(names, path):
    """How a file's tensors are named.

    Raises:
      UserError: none that is known.
    """
    for naming in NAMINGS.values():
        if any(re.search(naming.marks, name) for name in names):
            return naming
    known = ", ".join(naming.title for naming in NAMINGS.values())
    some = ", ".join(list(names)[:5]) or "no tensors"
    raise UserError(f"{path} names its tensors in no way that is known: found {some}; known are {known}.")
