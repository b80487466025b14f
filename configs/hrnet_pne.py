"""Paper 004's loss on HRNetV2-W48 with its own head.

    python -m vspw_jax.main --config=configs/hrnet_pne.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/hrnet_pne.py:demo                         generated data, a laptop

All but the loss and its projection is as in configs/hrnet.py, which has the same sizes. On Cityscapes the paper's table
2 has 79.7 mIoU without the loss and 81.5 with it.
"""

from ml_collections import ConfigDict

from configs import hrnet
from configs.parts import equal_contrast


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at a size of configs/hrnet.py's."""
    return equal_contrast.attached(hrnet.get_config(size), size)
