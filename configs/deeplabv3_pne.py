"""Paper 004's loss on the network that it is shown with: DeepLabV3 on a dilated ResNet-101.

    python -m vspw_jax.main --config=configs/deeplabv3_pne.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/deeplabv3_pne.py:demo                         generated data, a laptop

All but the loss and its projection is as in configs/deeplabv3.py, which has the same sizes. On Cityscapes the paper's
table 2 has 78.5 mIoU without the loss and 80.8 with it.
"""

from ml_collections import ConfigDict

from configs import deeplabv3
from configs.parts import equal_contrast


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at a size of configs/deeplabv3.py's."""
    return equal_contrast.attached(deeplabv3.get_config(size), size)
