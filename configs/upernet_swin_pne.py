"""Paper 004's loss on Swin-B with UperNet.

    python -m vspw_jax.main --config=configs/upernet_swin_pne.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/upernet_swin_pne.py:demo                         generated data, a laptop

All but the loss and its projection is as in configs/upernet_swin.py, which has the same sizes. On COCO-Stuff the
paper's table 3 has 43.7 mIoU without the loss and 44.3 with it.
"""

from ml_collections import ConfigDict

from configs import upernet_swin
from configs.parts import equal_contrast


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at a size of configs/upernet_swin.py's."""
    return equal_contrast.attached(upernet_swin.get_config(size), size)
