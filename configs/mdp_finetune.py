"""Fine-tuning of what configs/mdp.py has pretrained: DeepLabV3 on a standard ResNet-50, without an auxiliary head.

    python -m vspw_jax.main --config=configs/mdp_finetune.py --config.init_from=runs/mdp --config.data.records=DIR
    python -m vspw_jax.main --config=configs/mdp_finetune.py:demo --config.init_from=runs/mdp_demo

Sizes beside "full", which is for VSPW: "voc", "ade20k" and "cityscapes", as published (paper, table 1, pretrained on
VOC, ADE20K and COCO-Stuff: 77.79, 42.69, 80.64 mIoU). Encoder and ASPP start from the workdir, or from any file that
fits; without one from random weights (44.78, 28.67, 54.27).

"Paper" is Multi-dataset Pretraining (arXiv 2106.04121), section 4.1; "mmseg", whose configuration it follows, is
open-mmlab/mmsegmentation configs/deeplabv3/deeplabv3_r50-d8_4xb4-40k_voc12aug-512x512.py,
..._4xb4-80k_ade20k-512x512.py, ..._4xb2-40k_cityscapes-512x1024.py and their bases.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from configs import mdp
from configs.parts import data, losses, running, sizes, training


class Target(NamedTuple):
    """A data set, and how it is trained on: crop and base size, steps, images a step."""

    records: str
    crop: tuple[int, int]
    base_size: tuple[int, int]
    steps: int
    batch: int


TARGETS = {
    "voc": Target("data/pascal_voc/records", (513, 513), (2048, 512), 40_000, 16),  # Paper: crop; mmseg: 512.
    "ade20k": Target("data/ade20k/records", (512, 512), (2048, 512), 80_000, 16),
    "cityscapes": Target("data/cityscapes/records", (512, 1024), (2048, 1024), 40_000, 8),
}
"""By size. The paper knows no VSPW, whose 124 classes are most like ADE20K's: it has these values."""


def get_config(size: str = "full") -> ConfigDict:
    """The recipe for VSPW ("full"), for one of `TARGETS`, or as a laptop trains it in minutes ("demo")."""
    records, crop, base_size, steps, batch = TARGETS.get(size, TARGETS["ade20k"])
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A workdir of configs/mdp.py, or a PyTorch checkpoint.
    config.init_from_key = ""  # Which weights of it; "ema": those of the key encoder. Empty: the trained ones.
    config.task = training.supervised()
    config.model = mdp.network(crop)
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    config.optimizer = training.sgd(learning_rate=0.01, weight_decay=5e-4)  # mmseg; momentum 0.9, one rate for all.
    config.schedule = training.poly(power=0.9)  # mmseg.
    config.schedule.minimum = 1e-4  # mmseg.
    config.train = training.steps(steps, batch)
    config.sharding = training.devices()
    config.data = data.vspw(base_size)
    if size in TARGETS:
        config.data.update(records=records, classes="union")  # Its own classes: ADE20K's 150 are not mapped to VSPW's.
    # Two thirds of the crop, as in the other recipes; mmseg scores the whole image at once. One softmax.
    stride = (crop[0] * 2 // 3, crop[1] * 2 // 3)
    config.evaluate = running.evaluate(stride, double_softmax=False)
    # mmseg scores frames fitted into the base size: Cityscapes' at 2048x1024, VOC's enlarged to a short side of 512. At
    # scale 1 a frame is fitted to the crop, which is half of Cityscapes'.
    config.evaluate.scales = (base_size[1] / crop[0],)
    config.run = running.run()
    return sizes.sized(config, "full" if size in TARGETS else size, shrink)


def shrink(config: ConfigDict) -> None:
    """Turns the recipe into its demo: the network of the pretraining's demo, on generated video."""
    sizes.shrink_deeplabv3(config)
    config.model.decoder.auxiliary_dim = 0
