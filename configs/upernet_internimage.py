"""InternImage-XL with UperNet, of paper 000's table 1: per-pixel cross-entropy alone.

    python -m vspw_jax.main --config=configs/upernet_internimage.py --config.data.records=DIR   paper: 48.52 on test 1
    python -m vspw_jax.main --config=configs/upernet_internimage.py:demo                        generated data, a laptop

Every value carries its source, here or in configs/parts/: "InternImage" is OpenGVLab/InternImage
segmentation/configs/ade20k/upernet_internimage_xl_640_160k_ade20k.py and its bases; "ours" a choice of this codebase.
InternImage's README has 55.0 mIoU on ADE20K. Paper 000 (arXiv 2306.03508) names the network in table 1, and no setting
of its own.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; InternImage: XL of ImageNet-22k.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    # InternImage: crop.
    config.model = models.network(models.internimage_xl(), models.upernet(), image_size=(640, 640))
    config.model.decoder.dim = 512  # InternImage.
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    # InternImage; its rates of layers are those of layer_id in models/encoders/internimage.py.
    config.optimizer = training.adamw(learning_rate=2e-5, weight_decay=0.05, layer_decay=0.94)
    config.optimizer.clip_norm = 0.1  # InternImage.
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # InternImage.
    config.train = training.steps(160_000, batch=16)  # InternImage.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2560, 640))  # InternImage.
    # Two thirds of the crop, as in the other recipes; InternImage scores the whole image at once. One softmax.
    config.evaluate = running.evaluate(stride=(426, 426), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_internimage)
