"""The baseline of paper 001: BEiT-L with UperNet, single frames, per-pixel cross-entropy.

    python -m vspw_jax.main --config=configs/upernet.py --config.data.records=DIR      paper: 60.02 mIoU, table 1
    python -m vspw_jax.main --config=configs/upernet.py:demo                           generated data, a laptop

Every value carries its source: "paper" is Memory Based Video Scene Parsing (Jin et al., 2021); "released" is
microsoft/unilm beit/semantic_segmentation/configs/beit/upernet/upernet_beit_large_24_640_slide_160k_ade20k_pt2ft.py and
its base upernet_beit.py, in whose names the weights are published; "sssegmentation" is the authors' later
SegmentationBLWX/sssegmentation ssseg/configs/_base_/datasets/vspw_512x512.py; "ours" a choice of this codebase. What
does not stand here is as in configs/baseline.py.
"""

from ml_collections import ConfigDict

from configs import baseline


def get_config(size="full"):
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = baseline.get_config()
    config.model.image_size = (512, 512)  # Paper: crop 512. Multiples of 16. The published weights: 640.

    encoder = config.model.encoder = ConfigDict()
    encoder.name = "beit"
    encoder.dim = 1024  # Paper section 3 and released, as the next three.
    encoder.depth = 24
    encoder.heads = 16
    encoder.mlp_ratio = 4.0
    encoder.layer_scale = 1e-6  # Released: init_values.
    encoder.drop_path = 0.2  # Released; linear from 0 over the blocks.
    encoder.out_blocks = (8, 12, 16, 24)  # Released: out_indices 7, 11, 15, 23, counted from 0.

    decoder = config.model.decoder = ConfigDict()
    decoder.name = "upernet"
    decoder.dim = 1024  # Released, as all of the decoder.
    decoder.pool_scales = (1, 2, 3, 6)
    decoder.dropout = 0.1  # Of both heads, before the classifier.
    decoder.auxiliary_dim = 256
    decoder.auxiliary_level = 2  # The map at 1/16.

    segmentation = config.loss.segmentation = ConfigDict()
    segmentation.weights = {"pixel": 1.0, "auxiliary": 0.4}  # Released.
    # Or "all": void pixels count in the mean, as in the released code (mmseg's avg_non_ignore=False). Ours, so that the
    # padding of a crop does not weaken the loss.
    segmentation.averaged_over = "labelled"
    segmentation.class_weight = ()  # Released: none. Else one weight a class, for its pixels.

    config.optimizer.learning_rate = 2e-5  # Paper section 4 and released.
    config.optimizer.warmup_steps = 1500  # Released: 3000 half steps of 8 images, two of which make an update.
    config.optimizer.weight_decay = 0.05  # Paper and released.
    config.optimizer.layer_decay = 0.95  # Released.
    config.optimizer.embeddings_at_layer_0 = False  # Released: both heads at the full rate.

    config.train.steps = 42_000  # Paper: 240 epochs, of one frame from each of 2806 videos.
    config.train.batch = 16  # Paper.
    config.data.augment.base_size = (2048, 512)  # sssegmentation. The paper: mmseg's scaling, flip and colour jitter.
    config.evaluate.stride = (341, 341)  # Two thirds of the crop, as released (426 of 640).
    config.evaluate.double_softmax = False  # Released: mmseg's EncoderDecoder has one.
    return baseline.sized(config, size, shrink)


def shrink(config):
    """Turns the recipe into its demo: the same network, narrow and shallow, on generated video, from random weights."""
    baseline.shrink_run(config)
    config.model.encoder.update(dim=96, depth=4, heads=4, layer_scale=0.1, drop_path=0.0, out_blocks=(1, 2, 3, 4))
    config.model.decoder.update(dim=96, auxiliary_dim=32)
