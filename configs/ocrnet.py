"""HRNetV2-W48 with OCRNet, a network that paper 004 shows its loss on: per-pixel cross-entropy of both heads alone.

    python -m vspw_jax.main --config=configs/ocrnet.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/ocrnet.py:demo                         generated data, a laptop

All but the decoder is as in configs/hrnet.py, which has the same sizes. "mmseg" is open-mmlab/mmsegmentation
configs/ocrnet/ocrnet_hr48_4xb4-160k_ade20k-512x512.py and its bases, which weighs the auxiliary head with 0.4 as
`losses.per_pixel` does. It publishes 43.25 mIoU on ADE20K; the paper's table 4 has 45.66 over scales with flips.
"""

from ml_collections import ConfigDict

from configs import hrnet
from configs.parts import models, sizes, targets


def get_config(size: str = "full") -> ConfigDict:
    """The recipe for VSPW ("full"), for a data set of `targets.PNE`, or as a laptop trains it in minutes ("demo")."""
    config = hrnet.get_config()
    config.model.decoder = models.ocrnet(config.model.encoder)
    return sizes.sized(config, size, sizes.shrink_ocrnet, targets.PNE)
