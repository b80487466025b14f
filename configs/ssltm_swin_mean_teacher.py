"""SSLTM of configs/ssltm_swin.py on one labelled frame of each video, with a mean teacher: paper 002's best, table 1.

    python -m vspw_jax.main --config=configs/ssltm_swin_mean_teacher.py --config.data.records=DIR    full size
    python -m vspw_jax.main --config=configs/ssltm_swin_mean_teacher.py:demo                         drawn data

There it has 44.37 mIoU on VSPW, and 43.11 without the teacher. What configs/ssltm_mean_teacher.py says holds here too:
this is no reproduction, and values and their sources are those of configs/ssltm_swin.py and of
configs/parts/semi_supervised.py.
"""

from ml_collections import ConfigDict

from configs import ssltm_swin
from configs.parts import semi_supervised


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    return semi_supervised.with_teacher(ssltm_swin.get_config(size), size)
