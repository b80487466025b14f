"""SSLTM of paper 002 on Swin-S, as in its table 1: 59.3 million parameters there, 58.8 here.

    python -m vspw_jax.main --config=configs/ssltm_swin.py --config.data.records=DIR    full size; no score of ours
    python -m vspw_jax.main --config=configs/ssltm_swin.py:demo                         generated data, a laptop

All but the encoder and the optimizer is as in configs/ssltm.py. "VSS-CFFM" is GuoleiSun/VSS-CFFM
local_configs/cffm/, whose networks are transformers too.
"""

from ml_collections import ConfigDict

from configs import ssltm
from configs.parts import models, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ssltm.get_config()
    config.model.encoder = models.swin_small()
    config.optimizer = training.adamw(learning_rate=6e-5, weight_decay=0.01)  # VSS-CFFM.
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # VSS-CFFM.
    sizes.sized(config, size, sizes.shrink_swin)
    if size == "demo":
        ssltm.shrink_ssltm(config)
        config.model.decoder.inputs = "all"  # The coarsest map of its crop has 3x3 cells.
        config.data.frames = 1 + config.model.decoder.short_term
    else:
        config.optimizer.decoder_rate = 10.0  # Of the decoder, times the encoder's rate: VSS-CFFM.
    return config
