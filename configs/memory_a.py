"""Paper 001's decoder A: BEiT-L and UperNet with a feature memory, read by the mask of the frame before.

    python -m vspw_jax.main --config=configs/memory_a.py --config.data.records=DIR      paper: 61.24 mIoU, table 1
    python -m vspw_jax.main --config=configs/memory_a.py:demo                           generated data, a laptop

"Paper" is Memory Based Video Scene Parsing (Jin et al., 2021). What does not stand here, or in configs/parts/, is as in
configs/upernet.py: among it crop 512, AdamW with 2e-5 and 0.05, and 240 epochs by 16 videos, which are the paper's.
With two frames of each they are 32 images a step.
"""

from ml_collections import ConfigDict

from configs import upernet
from configs.parts import losses, models


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = upernet.get_config(size)
    decoder = models.memory_a()
    config.loss.segmentation = losses.memory_per_pixel()
    # A frame and the one whose mask it reads by; ours. The paper draws one frame and does not say what it reads by.
    config.data.frames = 2
    if size == "demo":
        decoder.update(dim=config.model.decoder.dim, auxiliary_dim=config.model.decoder.auxiliary_dim, memory_dim=64)
        decoder.update(truth_steps=60, truth_epochs=0)  # Of 500: an epoch of 240 videos by 4.
        config.loss.segmentation.update(memory_start_step=60, memory_start_epoch=0)
    config.model.decoder = decoder
    if size == "demo":
        config.train.batch //= 2  # As many frames a step as the demo of UperNet.
    return config
