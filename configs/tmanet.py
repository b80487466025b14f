"""TMANet on a dilated ResNet-50: every frame attends to the two frames before it.

    python -m vspw_jax.main --config=configs/tmanet.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/tmanet.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "TMANet" is wanghao9610/TMANet
configs/video/cityscapes/tmanet_r50-d8_769x769_80k_cityscapes_video.py and its bases (Temporal Memory Attention for
Video Semantic Segmentation, arXiv 2102.08643: 80.3 mIoU on Cityscapes), which knows no VSPW. What does not stand here
is as in configs/deeplabv3.py, which has the same code under it: crop 512, not 769, for VSPW's frames are smaller.
"""

from ml_collections import ConfigDict

from configs import deeplabv3
from configs.parts import models, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = sizes.sized(deeplabv3.get_config(), size, sizes.shrink_deeplabv3)
    decoder = models.tmanet()
    if size == "demo":
        decoder.update(dim=96, key_dim=16, value_dim=32, auxiliary_dim=32)
    else:
        config.model.encoder.depths = (3, 4, 6, 3)  # ResNet-50: TMANet.
        config.train = training.steps(80_000, batch=8)  # TMANet.
    config.model.decoder = decoder
    config.data.frames = decoder.past + 1  # A frame and those that it looks back at.
    return config
