"""Paper 004's loss on HRNetV2-W48 with OCRNet.

    python -m vspw_jax.main --config=configs/ocrnet_pne.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/ocrnet_pne.py:demo                         generated data, a laptop

All but the loss and its projection is as in configs/ocrnet.py, which has the same sizes. On ADE20K the paper's table 4
has 45.66 mIoU without the loss and 46.76 with it, on Cityscapes its table 2 has 81.6 and 82.9.
"""

from ml_collections import ConfigDict

from configs import ocrnet
from configs.parts import equal_contrast


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at a size of configs/ocrnet.py's."""
    return equal_contrast.attached(ocrnet.get_config(size), size)
