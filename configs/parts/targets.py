"""Data sets that sizes of recipes are named after, and how each paper trains on them.

"mmseg" is open-mmlab/mmsegmentation, whose configurations both papers follow: the crop and base size of a data set are
those of its configs/_base_/datasets/.
"""

import dataclasses

from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Target:
    """A data set, and how it is trained on: crop and base size, steps, images a step, rate."""

    records: str
    crop: tuple[int, int]
    """Height and width."""
    base_size: tuple[int, int]
    """Width and height."""
    steps: int
    batch: int
    sgd_rate: float = 0.01

    def __call__(self, config: ConfigDict) -> None:
        """Turns a recipe at its full size to this data set and its own classes."""
        config.model.image_size = self.crop
        if config.optimizer.name == "sgd":
            config.optimizer.learning_rate = self.sgd_rate
        config.train.update(steps=self.steps, batch=self.batch)
        # ADE20K's 150 classes and COCO-Stuff's 171 are not mapped to VSPW's.
        config.data.update(records=self.records, classes="union")
        config.data.augment.base_size = self.base_size
        # Two thirds of the crop, as in the other recipes; mmseg scores the whole image at once.
        config.evaluate.stride = (self.crop[0] * 2 // 3, self.crop[1] * 2 // 3)
        # mmseg scores frames fitted into the base size: Cityscapes' at 2048x1024, others' enlarged to a short side of
        # 512. At scale 1 a frame is fitted to the crop, which is half of Cityscapes'.
        config.evaluate.scales = (self.base_size[1] / self.crop[0],)


ADE20K = Target("data/ade20k/records", (512, 512), (2048, 512), 80_000, 16)
CITYSCAPES = Target("data/cityscapes/records", (512, 1024), (2048, 1024), 40_000, 8)

MDP = {
    "voc": Target("data/pascal_voc/records", (513, 513), (2048, 512), 40_000, 16),
    "ade20k": ADE20K,
    "cityscapes": CITYSCAPES,
}
"""By size. Multi-dataset Pretraining (arXiv 2106.04121), section 4.1: the crop of VOC. mmseg: the rest."""
PNE = {
    "cityscapes": CITYSCAPES,
    "coco_stuff": Target("data/coco_stuff/records", (512, 512), (2048, 512), 60_000, 16, sgd_rate=0.001),
    "ade20k": dataclasses.replace(ADE20K, steps=160_000),
}
"""By size. Positive-Negative Equal Contrastive Loss for Semantic Segmentation (Wang et al., 2022), table 1: steps,
images a step, rate. Its COCO-Stuff has 10,000 images; data_prep.coco_stuff reads the one with 164,000."""
