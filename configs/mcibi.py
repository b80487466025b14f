"""MCIBI on a dilated ResNet-101: DeepLabV3's pyramid beside a feature memory, the forerunner of paper 001's decoder A.

    python -m vspw_jax.main --config=configs/mcibi.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/mcibi.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "MCIBI" is SegmentationBLWX/sssegmentation
ssseg/configs/mcibi/mcibi_deeplabv3_resnet101os8_ade20k.py and its base (Mining Contextual Information Beyond Image for
Semantic Segmentation, arXiv 2108.11819), which knows no VSPW: ADE20K counts, whose 150 classes are most like VSPW's.
What does not stand here is as in configs/deeplabv3.py: crop 512, batch 16 and SGD with 0.01 are MCIBI's too.
"""

from ml_collections import ConfigDict

from configs import deeplabv3
from configs.parts import losses, models, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = sizes.sized(deeplabv3.get_config(), size, sizes.shrink_deeplabv3)
    decoder, loss = models.mcibi(), losses.memory_per_pixel()
    if size == "demo":
        decoder.update(dim=96, dilations=(2, 4, 6), auxiliary_dim=32)  # Twelve cells a side.
        loss.update(memory_start_step=30, memory_start_epoch=0)  # Of 500: an epoch of 240 videos by 8.
    else:
        config.train = training.steps(164_207, batch=16)  # MCIBI: 130 epochs of ADE20K's 20,210 images.
    config.model.decoder, config.loss.segmentation = decoder, loss
    return config
