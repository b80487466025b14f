"""UperNet of configs/upernet.py on one labelled frame of each video, with a mean teacher for the other frames.

    python -m vspw_jax.main --config=configs/upernet_mean_teacher.py --config.data.records=DIR    no published score
    python -m vspw_jax.main --config=configs/upernet_mean_teacher.py:demo                         drawn data, a laptop

Without the teacher: configs/upernet.py with --config.data.labelled_frames=drawn. The teacher is scored;
--config.evaluate.weights=trained scores the student. Values and their sources are those of configs/upernet.py and of
configs/parts/semi_supervised.py.
"""

from ml_collections import ConfigDict

from configs import upernet
from configs.parts import semi_supervised


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    return semi_supervised.with_teacher(upernet.get_config(size), size)
