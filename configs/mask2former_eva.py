"""EVA-01-g with ViT-Adapter and Mask2Former, of paper 000's table 1: single frames, segmentation loss alone.

    python -m vspw_jax.main --config=configs/mask2former_eva.py --config.data.records=DIR    paper: 57.45 on test 1
    python -m vspw_jax.main --config=configs/mask2former_eva.py:demo                         generated data, a laptop

Every value carries its source, here or in configs/parts/: "paper" is arXiv 2306.03508, whose table 1 says "Eva" and
cites EVA-01; "EVA" is baaivision/EVA EVA-01/seg/configs/coco_stuff164k/eva_mask2former_896_60k_cocostuff164k_ss.py;
"released" and "CFFM" are as in configs/baseline.py, whose settings these are. EVA itself has crop 896, rate 1.5e-5,
60,000 steps of 32 images and windows 512 apart there, and 53.4 mIoU on COCO-Stuff.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from: EVA-01-g's, eva_psz14to16.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    # Paper section 3.2: crop 480; multiples of 32.
    config.model = models.network(models.eva01_giant_adapter(), models.mask2former(), image_size=(480, 480))
    config.model.decoder.decoder_layers = 8  # EVA, of the network without relative positions; 9 of the other.
    config.loss = ConfigDict()
    config.loss.weight = 1.0  # Lambda 1 of equation 3, paper section 2.5.
    config.loss.segmentation = losses.mask_classification()
    # Paper section 3.2 and released; the layers' decay is EVA's (0.9 in one of its trainings on ADE20K).
    config.optimizer = training.adamw(learning_rate=2e-5, weight_decay=0.05, layer_decay=0.95)
    config.optimizer.embeddings_at_layer_0 = True  # An oddity of the released code; see optimizers.layer_scales.
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # Paper, released.
    config.train = training.steps(40_000, batch=4)  # Paper: 2 GPUs with 2 images each.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(853, 480))  # CFFM: Resize (853, 480), the size of VSPW-480p.
    config.evaluate = running.evaluate(stride=(320, 320), double_softmax=True)  # Released, 480 configs.
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_eva01)
