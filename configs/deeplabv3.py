"""DeepLabV3 on a dilated ResNet-101, the network that paper 004 attaches its loss to: per-pixel cross-entropy alone.

    python -m vspw_jax.main --config=configs/deeplabv3.py --config.data.records=DIR    full size; no VSPW score
    python -m vspw_jax.main --config=configs/deeplabv3.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "paper" is Positive-Negative Equal Contrastive Loss for
Semantic Segmentation (Wang et al., 2022), which knows no VSPW: its column of ADE20K counts, whose 150 classes are most
like VSPW's. Sizes "cityscapes", "coco_stuff" and "ade20k" are as its table 1 has them; "mmseg", on which its code is
built, is open-mmlab/mmsegmentation configs/deeplabv3/deeplabv3_r101-d8_4xb4-160k_ade20k-512x512.py and its bases;
"ours" a choice of this codebase. mmseg publishes 45.00 mIoU on ADE20K.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, targets, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe for VSPW ("full"), for a data set of `targets.PNE`, or as a laptop trains it in minutes ("demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; mmseg: ResNet-101 V1c of ImageNet.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    # mmseg: crop 512, no rematerialisation (with_cp False).
    config.model = models.network(models.resnet_101(), models.deeplabv3(), image_size=(512, 512))
    config.model.remat = "none"
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    config.optimizer = training.sgd(learning_rate=0.01, weight_decay=5e-4)  # Paper, table 1; momentum 0.9.
    config.schedule = training.poly(power=0.9)  # Paper, section 4.2.2.
    config.schedule.minimum = 1e-4  # mmseg.
    config.train = training.steps(160_000, batch=16)  # Paper, table 1.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))  # mmseg.
    # Two thirds of the crop, as in the other recipes; mmseg scores the whole image at once. One softmax.
    config.evaluate = running.evaluate(stride=(341, 341), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_deeplabv3, targets.PNE)
