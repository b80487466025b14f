"""SegFormer-B2, on which most public code for video segmentation builds: per-pixel cross-entropy alone.

    python -m vspw_jax.main --config=configs/segformer.py --config.data.records=DIR    full size
    python -m vspw_jax.main --config=configs/segformer.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "SegFormer" is NVlabs/SegFormer
local_configs/segformer/B2/segformer.b2.512x512.ade.160k.py and its bases; "ours" a choice of this codebase. It
publishes 46.5 mIoU on ADE20K (arXiv 2105.15203, table 1). Ashesham/TV3S reports 43.9 mIoU of this network on VSPW's
validation set, with a VC8 of 86.0.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; SegFormer: mit_b2 of ImageNet.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    config.model = models.network(models.mit_b2(), models.segformer(), image_size=(512, 512))  # SegFormer: crop 512.
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    # SegFormer, which also decays the biases and the decoder's norm; that it does not here is ours.
    config.optimizer = training.adamw(learning_rate=6e-5, weight_decay=0.01)
    config.optimizer.decoder_rate = 10.0  # Of the decoder, times the encoder's rate: SegFormer.
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # SegFormer.
    config.train = training.steps(160_000, batch=16)  # SegFormer.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))  # SegFormer.
    # Two thirds of the crop, as in the other recipes; SegFormer scores the whole image at once. One softmax.
    config.evaluate = running.evaluate(stride=(341, 341), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_segformer)
