"""What the config in a checkpoint of mmsegmentation says of its network that the tensors do not tell.

The same tensors are those of several networks: dilations and strides leave no trace in them. The config's text is
parsed as Python and never run. Sources: open-mmlab/mmsegmentation tools/train.py (meta.config of version 0),
mmseg/models/backbones/resnet.py and mmseg/models/decode_heads/{decode_head,aspp_head,fcn_head}.py;
open-mmlab/mmengine mmengine/runner/runner.py (meta.cfg of version 1).
"""

import ast
import dataclasses
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError
from vspw_jax.interop import stored_networks

PLACES = ("cfg", "config")
"""Of the text in a checkpoint's meta."""
LONGEST = 2**18
"""Characters. Texts of released files have some ten thousand."""

PLAIN = ((1, 2, 2, 2), (1, 1, 1, 1))
STRIDES: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {
    ((1, 2, 1, 1), (1, 1, 2, 4)): 8,
    ((1, 2, 2, 1), (1, 1, 1, 2)): 16,
    PLAIN: 32,
}
"""By strides and dilations of a ResNet's stages, the output stride that means the same here."""


@dataclasses.dataclass(frozen=True)
class Stated:
    """What a config says.

    Attributes:
      fields: of our encoder and decoder, by name: output_stride, dilations.
      others: what no network here has, such as "multi_grid=(1, 2, 4)".
      align_corners: whether the head resizes so.
    """

    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    others: tuple[str, ...] = ()
    align_corners: bool = False


def _value(node: ast.expr) -> Any:
    """What an expression of literals and dict(...) means; None for another."""
    if isinstance(node, ast.Call):
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return node.value if isinstance(node, ast.Constant) else None


def _model(text: str) -> dict[Any, Any]:
    """The dict that a config's text calls "model"; an empty one where it has none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            statements = ast.parse(text).body
        for statement in statements:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", None) == "model":
                return _dict(_value(statement.value))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return {}


def _dict(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _numbers(table: Mapping[Any, Any], name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    value = table.get(name)
    return value if isinstance(value, tuple) and all(isinstance(item, int) for item in value) else default


def _of_resnet(backbone: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """(fields, others) of a ResNet."""
    strides, dilations = _numbers(backbone, "strides", PLAIN[0]), _numbers(backbone, "dilations", PLAIN[1])
    multi_grid, style = _numbers(backbone, "multi_grid"), backbone.get("style", "pytorch")
    unlike = {
        f"strides={strides}, dilations={dilations}": (strides, dilations) not in STRIDES,
        "contract_dilation=False": dilations != PLAIN[1] and not backbone.get("contract_dilation"),
        f"multi_grid={multi_grid}": bool(set(multi_grid) - {1}),
        f"style={style!r}": style != "pytorch",
    }
    others = [text for text, is_unlike in unlike.items() if is_unlike]
    return ({} if others else {"output_stride": STRIDES[strides, dilations]}), others


def in_content(content: Any) -> Stated:
    """What the config in a checkpoint says; nothing where there is none, or none that can be parsed."""
    meta = stored_networks.entries(stored_networks.entries(content).get("meta"))
    text = next((meta[place] for place in PLACES if isinstance(meta.get(place), str)), "")
    model = _model(text) if len(text) <= LONGEST else {}
    backbone, heads = _dict(model.get("backbone")), model.get("decode_head")
    head = _dict(heads[-1] if isinstance(heads, tuple) and heads else heads)
    is_resnet = re.search(r"(^|\.)ResNet(V1\w)?$", str(backbone.get("type")))
    fields, others = _of_resnet(backbone) if is_resnet else ({}, [])
    dilations, dilation = _numbers(head, "dilations"), head.get("dilation", 1)
    if dilations:
        fields["dilations"] = dilations[1:]  # The first is that of the 1x1 convolution.
    if dilation != 1:
        others.append(f"dilation={dilation} in the head")
    return Stated(fields, tuple(others), head.get("align_corners") is True)


def _aligns_alike(decoder: ConfigDict) -> bool:
    """Whether a decoder gives the same logits with corners aligned: one that resizes no map of several cells."""
    return decoder.name == "deeplabv3" or decoder.get("inputs") == "coarsest"


def check(config: ConfigDict, stated: Stated, path: pathlib.Path | str) -> None:
    """Raises UserError where `config.model` is another network than the file's own config says."""
    others = list(stated.others)
    if stated.align_corners and not _aligns_alike(config.decoder):
        others.append("align_corners=True")
    if others:
        raise UserError(
            f"{path}: its own config says {', '.join(others)}. No network here has that, so its weights would give "
            "another output. Choose another file; docs/weights.md lists some."
        )
    parts = {"encoder": config.encoder, "decoder": config.decoder}
    unlike = {
        f"{part}.{name}": (value, section[name])
        for part, section in parts.items()
        for name, value in stated.fields.items()
        if name in section and section[name] != value
    }
    if unlike:
        there, here = (", ".join(f"{name}={pair[side]}" for name, pair in unlike.items()) for side in (0, 1))
        quoted = {name: f"'{value}'" if isinstance(value, tuple) else value for name, (value, _) in unlike.items()}
        flags = " ".join(f"--config.model.{name}={value}" for name, value in quoted.items())
        raise UserError(f"{path}: its own config says {there}, the network of this config has {here}. Set {flags}.")
