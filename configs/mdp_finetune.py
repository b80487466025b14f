"""Fine-tuning of what configs/mdp.py has pretrained: DeepLabV3 on a standard ResNet-50, without an auxiliary head.

    python -m vspw_jax.main --config=configs/mdp_finetune.py --config.init_from=runs/mdp --config.data.records=DIR
    python -m vspw_jax.main --config=configs/mdp_finetune.py:demo --config.init_from=runs/mdp_demo

Sizes beside "full", which is for VSPW: "voc", "ade20k" and "cityscapes", as published (paper, table 1, pretrained on
VOC, ADE20K and COCO-Stuff: 77.79, 42.69, 80.64 mIoU). Encoder and ASPP start from the workdir, or from any file that
fits; without one from random weights (44.78, 28.67, 54.27).

"Paper" is Multi-dataset Pretraining (arXiv 2106.04121), section 4.1; "mmseg", whose configuration it follows, is
open-mmlab/mmsegmentation configs/deeplabv3/deeplabv3_r50-d8_4xb4-40k_voc12aug-512x512.py,
..._4xb4-80k_ade20k-512x512.py, ..._4xb2-40k_cityscapes-512x1024.py and their bases. The paper knows no VSPW, whose 124
classes are most like ADE20K's: "full" has its values.
"""

from ml_collections import ConfigDict

from configs import mdp
from configs.parts import data, losses, running, sizes, targets, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe for VSPW ("full"), for a data set of `targets.MDP`, or as a laptop trains it in minutes ("demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A workdir of configs/mdp.py, or a PyTorch checkpoint.
    config.init_from_key = ""  # Which weights of it; "ema": those of the key encoder. Empty: the trained ones.
    config.task = training.supervised()
    config.model = mdp.network(image_size=(512, 512))
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    config.optimizer = training.sgd(learning_rate=0.01, weight_decay=5e-4)  # mmseg; momentum 0.9, one rate for all.
    config.schedule = training.poly(power=0.9)  # mmseg.
    config.schedule.minimum = 1e-4  # mmseg.
    config.train = training.steps(80_000, batch=16)
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))
    # Two thirds of the crop, as in the other recipes; mmseg scores the whole image at once. One softmax.
    config.evaluate = running.evaluate(stride=(341, 341), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, shrink, targets.MDP)


def shrink(config: ConfigDict) -> None:
    """Turns the recipe into its demo: the network of the pretraining's demo, on generated video."""
    sizes.shrink_deeplabv3(config)
    config.model.decoder.auxiliary_dim = 0
