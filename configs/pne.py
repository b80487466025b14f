"""Paper 004's loss on the network of paper 001: BEiT-L with UperNet, per-pixel cross-entropy and the PNE loss.

    python -m vspw_jax.main --config=configs/pne.py --config.data.records=DIR      full size; no published VSPW score
    python -m vspw_jax.main --config=configs/pne.py:demo                           generated data, a laptop

The paper is Positive-Negative Equal Contrastive Loss for Semantic Segmentation (Wang et al., 2022), which trains
DeepLabV3, HRNet, OCRNet and UperNet on Cityscapes, COCO-Stuff and ADE20K. From it only the loss and its projection are
taken (configs/parts/equal_contrast.py): all else is as in configs/upernet.py. configs/deeplabv3_pne.py has the paper's
network.
"""

from ml_collections import ConfigDict

from configs import upernet
from configs.parts import equal_contrast


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    return equal_contrast.attached(upernet.get_config(size), size)
