"""Paper 003's multi-dataset pretraining (MDP); configs/mdp_finetune.py starts from its workdir.

    python -m vspw_jax.main --config=configs/mdp.py --config.data.records=DIR      full size; no published VSPW score
    python -m vspw_jax.main --config=configs/mdp.py:demo                           generated data, a laptop
    python -m vspw_jax.main --config=configs/mdp.py:demo --mode=export --naming=torchvision_resnet --output=X.pth

The paper is Multi-dataset Pretraining: A Unified Model for Semantic Segmentation (Shi et al., 2021, arXiv 2106.04121).
It has no public code. A ResNet-50 with DeepLabV3's ASPP and a projection learns from two views of every image, by
MoCo v2's augmentation, and their mixtures, that pixels lie near the prototype of their class. Every value carries its
source, here or in configs/parts/: "paper" is that paper, "ours" a choice of this codebase. The paper pretrains on
Pascal VOC, ADE20K and COCO-Stuff: sizes "voc_ade20k" and "voc_ade20k_coco"; "full" is on VSPW and COCO-Stuff.
"""

import functools
from collections.abc import Callable

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training

BESIDE_VOC = {
    "voc_ade20k": {"ade20k": data.ade20k},
    "voc_ade20k_coco": {"ade20k": data.ade20k, "coco_stuff": data.coco_stuff},
}
"""By size, what is learned together with Pascal VOC: the paper's table 1."""
STEPS = {"voc_ade20k": 192_450, "voc_ade20k_coco": 931_700}
"""Of 200 epochs: VOC's 10,582 images, ADE20K's 20,210, COCO-Stuff's 118,287."""


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at full size, on the paper's data (`BESIDE_VOC`), or as a laptop trains it in minutes ("demo")."""
    config = pretraining(network((224, 224)))  # Paper, section 4.1.
    config.optimizer = training.sgd(learning_rate=0.2, weight_decay=4e-5)  # Paper; momentum 0.9.
    config.schedule = training.cosine()  # Paper: to 0. By steps; MoCo's is by epochs.
    data_sets = {name: functools.partial(learn_beside_voc, size=name) for name in BESIDE_VOC}
    return sizes.sized(config, size, lambda c: shrink(c, sizes.shrink_deeplabv3), data_sets)


def learn_beside_voc(config: ConfigDict, size: str) -> None:
    """Turns the recipe into one of `BESIDE_VOC`."""
    config.train.steps = STEPS[size]
    config.data.update(records="data/pascal_voc/records", epoch="frame")  # Each image as often as another.
    config.data.mixture = ConfigDict({name: member("train") for name, member in BESIDE_VOC[size].items()})
    for member in config.data.mixture.values():
        member.min_mapped = 0.0


def pretraining(model: ConfigDict) -> ConfigDict:
    """All but the optimizer and the schedule of the pretraining of a network without an auxiliary head."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from. Paper: none.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.prototype_pretraining()
    config.model = model
    projection = config.model.projection = models.projection()
    projection.input = "decoder"  # Paper: after the ASPP.
    projection.layers = 4  # Paper.
    projection.hidden = 512  # Ours: as wide as the ASPP.
    projection.dim = 256  # Paper.
    config.model.bank = models.bank()
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.prototypes = losses.prototypes()
    config.ema = training.key_encoder()  # MoCo; the paper states no momentum.
    # Paper: 200 epochs, 32 images; 2806 videos and 118,287 images.
    config.train = training.epochs(200, batch=32, expected_steps=756_800)
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))
    config.data.views = "two"  # Paper: MoCo v2's; `data.augment` is not read.
    config.data.classes = "union"  # Paper, section 3.3: of all data sets, none mapped.
    config.data.mixture.coco_stuff = data.coco_stuff("train")
    config.data.mixture.coco_stuff.min_mapped = 0.0  # Paper: all images; void pixels count for no class.
    config.evaluate = running.evaluate(stride=(149, 149), double_softmax=False)  # Nothing reads it.
    config.run = running.run()
    config.run.afterwards = ()
    return config


def network(image_size: tuple[int, int]) -> ConfigDict:
    """`config.model`: the paper's network but for its projection, which configs/mdp_finetune.py shares."""
    model = models.network(models.resnet_50(), models.deeplabv3(), image_size)
    model.remat = "none"
    model.decoder.auxiliary_dim = 0  # Paper: no auxiliary head.
    return model


def shrink(config: ConfigDict, shrink_network: Callable[[ConfigDict], None]) -> None:
    """Turns the recipe into its demo: the same network, narrow and shallow, on generated video and images."""
    shrink_network(config)
    config.model.decoder.auxiliary_dim = 0
    config.model.projection.update(hidden=96, dim=64)
    config.model.bank.update(slots=25, images=200)
    config.ema.decay = 0.99  # Over about the last 100 steps.
    config.train.steps = 200
    config.run.update(afterwards=(), save_every=100)
    data.draw_images(config.data.mixture.coco_stuff)
