"""The kinds of files that can be read: how each names its tensors, and which of them we do not read.

A new kind of file is one function of rows (`name_maps.py`) and one entry in `NAMINGS`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Collection, Iterable

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import hugging_face_names, name_maps


@dataclasses.dataclass(frozen=True)
class Naming:
    """One way to name a network's tensors.

    Attributes:
      title: for people.
      marks: pattern of a name that such files have, and that files of the namings further down in `NAMINGS` lack.
      rows: function of config.model and the names in a file. Where a naming has several forms, the names tell which;
        without names the rows are of the form that we write.
      wrapper: the key under which the tensors stand in a .pth that we write.
      whole: whether such a file holds a whole network; if not, what it lacks stays as initialised.
      position_index: whether such files hold the buffers relative_position_index.
      left_out: patterns of names that are not read, each with the reason.
    """

    title: str
    marks: str
    rows: Callable[[ConfigDict, Collection[str]], list[name_maps.Row]]
    wrapper: str | None = None
    whole: bool = False
    position_index: bool = False
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


def _mmseg(config: ConfigDict, names: Collection[str]) -> list[name_maps.Row]:
    return list(name_maps.mmseg(config))


def _unilm(config: ConfigDict, names: Collection[str]) -> list[name_maps.Row]:
    shared = "rel_pos_bias.relative_position_bias_table"
    rows = name_maps.unilm(config)
    return list(name_maps.share_positions(rows, shared) if shared in names else rows)


def _hugging_face_beit(config: ConfigDict, names: Collection[str]) -> list[name_maps.Row]:
    prefixes = [name.removesuffix("embeddings.cls_token") for name in names if name.endswith("embeddings.cls_token")]
    prefix = prefixes[0] if prefixes else ""
    version = hugging_face_names.version(names)
    shared = prefix + version["shared table"]
    rows = hugging_face_names.beit(prefix, version, config)
    return list(name_maps.share_positions(rows, shared) if shared in names else rows)


def _require(config: ConfigDict, title: str, encoder: str, decoder: str) -> None:
    if (config.encoder.name, config.decoder.name) != (encoder, decoder):
        raise UserError(
            f"{title} of Hugging Face starts a network of {encoder} and {decoder}; this one is of "
            f"{config.encoder.name} and {config.decoder.name}."
        )


def _hugging_face_upernet(config: ConfigDict, names: Collection[str]) -> list[name_maps.Row]:
    _require(config, "A BEiT with UperNet", "beit", "upernet")
    names = names or ("beit.embeddings.cls_token",)
    rows = hugging_face_names.beit_upernet(hugging_face_names.version(names), config)
    return _hugging_face_beit(config, names) + list(rows)


def _hugging_face_mask2former(config: ConfigDict, names: Collection[str]) -> list[name_maps.Row]:
    _require(config, "A Mask2Former", "vit_adapter", "mask2former")
    names = names or ("model.pixel_level_module.encoder.embeddings.cls_token",)
    return _hugging_face_beit(config, names) + list(hugging_face_names.mask2former("model.", config))


_INDEX = {r"relative_position_index$": "position indices follow from the crop; export makes them anew"}
_PRETRAINING = "of a pretraining or image classification head, which a segmentation network does not have"

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
            r"^criterion\.empty_weight$": "class weights of the loss; here config.loss.segmentation has them",
            r"^model\.pixel_level_module\.encoder\.fpn": "the plain BEiT's pyramid; the adapter takes its place",
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


def recognise(names: Iterable[str], path: pathlib.Path | str) -> Naming:
    """How a file's tensors are named.

    Raises:
      UserError: in no known way.
    """
    for naming in NAMINGS.values():
        if any(re.search(naming.marks, name) for name in names):
            return naming
    known = ", ".join(naming.title for naming in NAMINGS.values())
    some = ", ".join(list(names)[:5]) or "no tensors"
    raise UserError(f"{path} names its tensors in no way that is known: found {some}; known are {known}.")
