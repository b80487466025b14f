"""Paper 004's loss on a recipe's network: its terms and the projection that it reads.

"Paper" is Positive-Negative Equal Contrastive Loss for Semantic Segmentation (Wang et al., 2022); "released" is
jingw193/PNE_Loss, its configs/cityscapes/deeplabv3_r101-d8_512x1024_40k_cityscapes_equal_13.py.
"""

from ml_collections import ConfigDict

from configs.parts import losses, models


def attached(config: ConfigDict, size: str) -> ConfigDict:
    """The recipe with the loss; `size` is that of the recipe."""
    projection = config.model.projection = models.projection()
    projection.input = "decoder"  # Paper section 4.2.2 and released: what the classifier reads.
    projection.hidden = 32 if size == "demo" else 512  # Released.
    projection.dim = 32 if size == "demo" else 256  # Released.
    config.loss.pne = losses.pne()
    return config
