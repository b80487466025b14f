"""Paper 001's decoder B: decoder A with temporal memory attention over the frames before.

    python -m vspw_jax.main --config=configs/memory_b.py --config.data.records=DIR      paper: 61.18 mIoU, table 1
    python -m vspw_jax.main --config=configs/memory_b.py:demo                           generated data, a laptop

"Paper" is Memory Based Video Scene Parsing (Jin et al., 2021). What does not stand here, or in configs/parts/, is as in
configs/memory_a.py.
"""

from ml_collections import ConfigDict

from configs import memory_a
from configs.parts import models


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = memory_a.get_config(size)
    decoder = models.memory_b(config.model.decoder)
    if size == "demo":
        decoder.update(key_dim=16, value_dim=32)
        decoder.truth_steps = config.loss.segmentation.memory_start_step = 30  # Of 500: an epoch of 240 videos by 8.
        config.train.batch *= 2  # One frame of each clip is decoded: as many as in decoder A's demo.
    config.model.decoder = decoder
    config.data.frames = decoder.past + 1  # A frame and those that it looks back at.
    return config
