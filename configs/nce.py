"""Paper 000's contrastive model: the baseline on two-frame clips, with the cross-frame contrastive loss.

    python -m vspw_jax.main --config=configs/nce.py --config.data.records=DIR      paper: 60.95 mIoU on test 1
    python -m vspw_jax.main --config=configs/nce.py:demo                           generated data, a laptop

Values and their sources are those of configs/baseline.py, but for what stands here.
"""

from ml_collections import ConfigDict

from configs import baseline


def get_config(size="full"):
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = baseline.get_config(size)
    config.data.frames = 2  # Paper section 3.2: two consecutive frames.
    config.train.batch = 2  # "2 GPUs with 2 images per GPU": a clip of two frames on each.
    config.loss.nce = ConfigDict()
    config.loss.nce.weight = 0.1  # Lambda 2 of equation 3, paper section 2.5.
    config.loss.nce.temperature = 0.1  # The paper states none; ContrastiveSeg's.
    config.loss.nce.level = 2  # Encoder map: 0 to 3 for 1/4 to 1/32. The paper states none; ours, 1/16: M = 1800.
    config.loss.nce.groups = 2  # Anchors meet positives and negatives inside a group; paper: each GPU by itself.
    if size == "demo":
        config.train.batch = 4
    return config
