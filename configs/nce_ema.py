"""The contrastive model of configs/nce.py, with an average of its weights, which is scored and exported.

    python -m vspw_jax.main --config=configs/nce_ema.py --config.data.records=DIR      full size; no published score
    python -m vspw_jax.main --config=configs/nce_ema.py:demo                           generated data, a laptop

--config.evaluate.weights=trained scores, predicts and exports the weights themselves. Values and their sources are
those of configs/nce.py, but for what stands here: any recipe gets an average by these two lines.
"""

from ml_collections import ConfigDict

from configs import nce
from configs.parts import training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = nce.get_config(size)
    config.ema = training.ema(decay=0.999 if size == "full" else 0.98)  # Ours: over about the last 1000 (50) steps.
    config.evaluate.weights = "ema"
    return config
