"""FocalNet-B with UperNet, of paper 000's table 1: per-pixel cross-entropy alone.

    python -m vspw_jax.main --config=configs/upernet_focalnet.py --config.data.records=DIR    paper: 47.35 on test 1
    python -m vspw_jax.main --config=configs/upernet_focalnet.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "FocalNet" is microsoft/FocalNet
segmentation/configs/focalnet/upernet_focalnet_base_patch4_512x512_160k_ade20k_lrf.py and its bases; "ours" a choice of
this codebase. FocalNet's README has 50.5 mIoU on ADE20K. Paper 000 (arXiv 2306.03508) names the network in table 1,
neither its size, so that B is ours, nor a setting of its own.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; FocalNet: FocalNet-B of ImageNet.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    config.model = models.network(models.focalnet_base(), models.upernet(), image_size=(512, 512))  # FocalNet: crop.
    config.model.decoder.dim = 512  # FocalNet.
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    # FocalNet, which also decays the biases, and the norms of UperNet; that it does not here is ours.
    config.optimizer = training.adamw(learning_rate=6e-5, weight_decay=0.01)
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # FocalNet.
    config.train = training.steps(160_000, batch=16)  # FocalNet.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))  # FocalNet.
    # Two thirds of the crop, as in the other recipes; FocalNet scores the whole image at once. One softmax.
    config.evaluate = running.evaluate(stride=(341, 341), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_focalnet)
