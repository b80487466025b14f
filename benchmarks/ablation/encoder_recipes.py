"""Recipes of paper 000's encoders, each under UperNet and under Mask2Former, all about as large: the study `encoders`.

    python -m vspw_jax.main --config=benchmarks/ablation/encoder_recipes.py:swin_mask2former

The data, loss, optimizer and decoder are those of the demos of configs/upernet.py and configs/baseline.py; the encoder
is that of a demo. Some widths are changed here.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import baseline, mask2former_eva, upernet, upernet_focalnet, upernet_internimage, upernet_swin

DECODERS: dict[str, tuple[Any, Mapping[str, Any]]] = {"upernet": (upernet, {"dim": 72}), "mask2former": (baseline, {})}
"""The recipe that has the decoder, and what of it is changed: then one is about as large as the other."""
WIDTH = 20
"""Of the first map of four: with it an encoder has about as many parameters as the demo's ViT-Adapter."""
ENCODERS: dict[str, tuple[Any, Mapping[str, Any]]] = {
    "focalnet": (upernet_focalnet, {"dim": WIDTH}),
    "swin": (upernet_swin, {"dim": WIDTH, "head_dim": WIDTH // 2}),
    "internimage": (upernet_internimage, {"dim": WIDTH, "group_width": WIDTH // 2}),
    "eva01": (mask2former_eva, {}),
    "beit_adapter": (baseline, {}),
}
"""In the order of arXiv 2306.03508, table 1: the recipe that has the encoder, and what of it is changed."""


def get_config(name: str) -> ConfigDict:
    """The recipe of an encoder and a decoder, such as "swin_mask2former".

    Raises:
      ValueError: another name.
    """
    encoder, _, decoder = name.rpartition("_")
    if encoder not in ENCODERS or decoder not in DECODERS:
        raise ValueError(
            f"unknown network {name!r}: expected an encoder of {list(ENCODERS)} and _upernet or _mask2former"
        )
    (recipe, decoder_fields), (encoders_recipe, encoder_fields) = DECODERS[decoder], ENCODERS[encoder]
    config = recipe.get_config("demo")
    config.model.encoder = encoders_recipe.get_config("demo").model.encoder
    config.model.encoder.update(encoder_fields)
    config.model.decoder.update(decoder_fields)
    return config
