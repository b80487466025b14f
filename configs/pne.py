"""Paper 004's loss on the network of paper 001: BEiT-L with UperNet, per-pixel cross-entropy and the PNE loss.

    python -m vspw_jax.main --config=configs/pne.py --config.data.records=DIR      full size; no published VSPW score
    python -m vspw_jax.main --config=configs/pne.py:demo                           generated data, a laptop

"Paper" is Positive-Negative Equal Contrastive Loss for Semantic Segmentation (Wang et al., 2022), which trains
DeepLabV3, HRNet, OCRNet and UperNet on Cityscapes, COCO-Stuff and ADE20K; "released" is jingw193/PNE_Loss, its
configs/cityscapes/deeplabv3_r101-d8_512x1024_40k_cityscapes_equal_13.py. From both only the loss and its projection are
taken: what does not stand here is as in configs/upernet.py.
"""

from ml_collections import ConfigDict

from configs import upernet
from configs.parts import losses, models


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = upernet.get_config(size)
    projection = config.model.projection = models.projection()
    projection.input = "decoder"  # Paper section 4.2.2 and released: what the classifier reads.
    projection.hidden = 512 if size == "full" else 32  # Released.
    projection.dim = 256 if size == "full" else 32  # Released.
    config.loss.pne = losses.pne()
    return config
