"""The baseline of paper 001: BEiT-L with UperNet, single frames, per-pixel cross-entropy.

    python -m vspw_jax.main --config=configs/upernet.py --config.data.records=DIR      paper: 60.02 mIoU, table 1
    python -m vspw_jax.main --config=configs/upernet.py:demo                           generated data, a laptop

Every value carries its source, here or in configs/parts/: "paper" is Memory Based Video Scene Parsing (Jin et al.,
2021); "released" is microsoft/unilm
beit/semantic_segmentation/configs/beit/upernet/upernet_beit_large_24_640_slide_160k_ade20k_pt2ft.py and its base
upernet_beit.py, in whose names the weights are published; "sssegmentation" is the authors' later
SegmentationBLWX/sssegmentation ssseg/configs/_base_/datasets/vspw_512x512.py; "ours" a choice of this codebase.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from; released: BEiT-L's.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    # Paper: crop 512; multiples of 16. The published weights: 640.
    config.model = models.network(models.beit_large(), models.upernet(), image_size=(512, 512))
    config.loss = ConfigDict()
    config.loss.weight = 1.0
    config.loss.segmentation = losses.per_pixel()
    # Paper section 4 and released; the layer decay is released, both heads at the full rate.
    config.optimizer = training.adamw(learning_rate=2e-5, weight_decay=0.05, layer_decay=0.95)
    # Released: 3000 half steps of 8 images, two of which make an update.
    config.schedule = training.poly(power=1.0, warmup_steps=1500)
    # Paper: 240 epochs, "for each iteration one frame from the videos"; sssegmentation: of 2806 videos.
    config.train = training.epochs(240, batch=16, expected_steps=42_090)
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(2048, 512))  # sssegmentation. The paper: mmseg's scaling, flip, colour jitter.
    # Two thirds of the crop, as released (426 of 640); mmseg's EncoderDecoder has one softmax.
    config.evaluate = running.evaluate(stride=(341, 341), double_softmax=False)
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_upernet)
