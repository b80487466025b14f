"""Real street video in 25 minutes on two cores: a narrow ResNet with UperNet, from random weights, on CamVid.

    python -m data_prep.folder --source=CAMVID --classes=vspw_jax/classes/tables/camvid_classes.csv \
      --void=0 --output=data/camvid/records
    python -m vspw_jax.main --config=configs/camvid.py        56 mIoU on CamVid's val; see docs/data.md
    python -m vspw_jax.main --config=configs/camvid.py:demo   generated data, a laptop

No paper's recipe: all values that are not those of configs/upernet.py or of a demo are ours, tried on CamVid. It is a
beginning for a data set of your own, too: put in your records, and take out `num_classes`.
"""

from ml_collections import ConfigDict

from configs import upernet
from configs.parts import data, models, sizes
from vspw_jax.classes import vspw


def get_config(size: str = "full") -> ConfigDict:
    """The recipe for CamVid (size "full"), or on drawn video (size "demo")."""
    config = upernet.get_config()
    sizes.shrink_run(config)
    config.model.encoder = models.resnet_101()
    config.model.encoder.update(stem="plain", width=32, depths=(1, 1, 2, 1), output_stride=32)
    config.model.decoder.update(dim=48, auxiliary_dim=0)
    config.model.image_size = (96, 128)
    config.model.num_classes = 11
    config.loss.segmentation.class_weight_from = "inverse_log"
    config.train.steps = 3000
    config.data.records = "data/camvid/records"
    del config.data.generate
    config.data.epoch = "frame"
    # Crops show a quarter of a frame at half to four fifths of its size; larger ones cost more than they teach.
    config.data.augment.update(base_size=(480, 360), resize_ratio=(0.5, 0.8))
    # Windows of frames of 256 x 192, the size at which they are scored best: 1.67 gives 0.5 mIoU less, 2.4 1.7 less.
    config.evaluate.update(scales=(2.0,), stride=(64, 86), windows=16)
    config.run.update(log_every=50, save_every=500, picture_every=1000)
    return sizes.sized(config, size, draw)


def draw(config: ConfigDict) -> None:
    """Puts drawn video of VSPW's classes in CamVid's place."""
    data.draw_video(config.data)
    config.model.num_classes = vspw.NUM_CLASSES
    config.loss.segmentation.class_weight_from = ""
    config.train.steps = 500
    config.evaluate.scales = (1.0,)
