"""Paper 000's contrastive model: the baseline on two-frame clips, with the cross-frame contrastive loss.

    python -m vspw_jax.main --config=configs/nce.py --config.data.records=DIR      paper: 60.95 mIoU on test 1
    python -m vspw_jax.main --config=configs/nce.py:demo                           generated data, a laptop

Values and their sources are those of configs/baseline.py, but for what stands here.
"""

from ml_collections import ConfigDict

from configs import baseline
from configs.parts import losses, models


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = baseline.get_config(size)
    config.data.frames = 2  # Paper section 3.2: two consecutive frames.
    config.train.batch = 2  # "2 GPUs with 2 images per GPU": a clip of two frames on each.
    config.model.projection = models.projection()
    config.loss.nce = losses.cross_frame_nce()
    if size == "demo":
        config.train.batch = 4
        config.data.frame_gap = 3  # Frames that differ more teach more: see the study `frames`.
        config.loss.nce.weight = 1.0  # From random weights it teaches the encoder; 0.1 hardly does. Measured.
    return config
