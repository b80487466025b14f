"""Swin-B with UperNet, of paper 000's table 1 and paper 004's: per-pixel cross-entropy alone.

    python -m vspw_jax.main --config=configs/upernet_swin.py --config.data.records=DIR    paper 000: 48.2 on test 1
    python -m vspw_jax.main --config=configs/upernet_swin.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "mmseg" is open-mmlab/mmsegmentation
configs/swin/swin-base-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py and its bases; "ours" a choice of
this codebase. mmseg publishes 47.99 mIoU on ADE20K. Paper 000 (arXiv 2306.03508) names the network in table 1, neither
its size, so that B is ours, nor a setting of its own. Paper 004 (Positive-Negative Equal Contrastive Loss for Semantic
Segmentation, Wang et al., 2022) names the network, and no setting of its own beside those of its convolutional ones.
Its table 1 has the steps and images a step of sizes "cityscapes", "coco_stuff" and "ade20k". The rate there is of SGD,
which the paper names for all its networks. AdamW and its rate stay mmseg's here, at all sizes: ours.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, targets, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe for VSPW ("full"), for a data set of `targets.PNE`, or as a laptop trains it in minutes ("demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; mmseg: Swin-B of ImageNet.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    config.model = models.network(models.swin_base(), models.upernet(), image_size=(512, 512))  # mmseg: crop 512.
    config.model.decoder.dim = 512  # mmseg.
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    # mmseg, which also decays the biases, and the norms of UperNet; that it does not here is ours.
    config.optimizer = training.adamw(learning_rate=6e-5, weight_decay=0.01)
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # mmseg.
    config.train = training.steps(160_000, batch=16)  # mmseg.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))  # mmseg.
    # Two thirds of the crop, as in the other recipes; mmseg scores the whole image at once. One softmax.
    config.evaluate = running.evaluate(stride=(341, 341), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_swin, targets.PNE)
