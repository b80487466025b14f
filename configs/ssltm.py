"""SSLTM of paper 002 on a dilated ResNet-101: a frame, those just before it, and the classes of one far away.

    python -m vspw_jax.main --config=configs/ssltm.py --config.data.records=DIR    full size; no score of ours
    python -m vspw_jax.main --config=configs/ssltm.py:demo                         generated data, a laptop

Simultaneously Short- and Long-Term Temporal Modeling for Semi-Supervised Video Semantic Segmentation (Lao et al., CVPR
2023); its main text, and with it the setting of its runs, was not at hand, and there is no public code. So this is no
reproduction: docs/ssltm.md tells what is stated by the paper and what is not. On Swin-S, configs/ssltm_swin.py, the
paper has 43.11 mIoU on VSPW, and OCRNet 39.56, both with one labelled frame a video.

Every value carries its source, here or in configs/parts/: "VSPW_baseline" is VSPW-dataset/VSPW_baseline
scripts/run_ocr.sh and config/vsp-resnet50dilated-ocr_deepsup.yaml, which train VSPW's own OCRNet; "VSS-CFFM" is
GuoleiSun/VSS-CFFM, as most later work on VSPW; "ours" a choice of this codebase. What does not stand here is as in
configs/deeplabv3.py, whose encoder it has.
"""

from ml_collections import ConfigDict

from configs import deeplabv3
from configs.parts import losses, models, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = sizes.sized(deeplabv3.get_config(), size, sizes.shrink_deeplabv3)
    config.model.decoder = decoder = models.ssltm()
    config.loss.segmentation = losses.clustered_per_pixel()
    # A reference, the short-term frames, of which the last is the query: the one that an epoch chooses and that counts.
    config.data.chosen = "last"
    config.data.reference_distance = (10, 60)  # Frames. Paper, figure 4a: the farther the better, up to 60; 10 is ours.
    if size == "demo":
        shrink_ssltm(config)
    else:
        config.model.image_size = (480, 480)  # VSS-CFFM; VSPW_baseline: 479.
        config.data.augment.base_size = (853, 480)  # VSS-CFFM.
        config.evaluate.stride = (320, 320)  # Two thirds of the crop, as in the other recipes.
        config.optimizer = training.sgd(learning_rate=0.002, weight_decay=1e-4)  # VSPW_baseline.
        config.schedule = training.poly(power=0.9)  # VSPW_baseline.
        config.train = training.epochs(120, batch=8, expected_steps=42_090)  # VSPW_baseline; 2806 videos.
    config.data.frames = 1 + decoder.short_term
    return config


def shrink_ssltm(config: ConfigDict) -> None:
    """What the demo's short videos and narrow network ask of the decoder."""
    config.model.decoder.update(dim=96, key_dim=48, auxiliary_dim=32, heads=4, mlp_ratio=2.0)
    config.model.decoder.update(short_term=2, window=(2, 7, 7))
    config.data.reference_distance = (2, 4)  # Of videos of 5 frames.
