"""EVA-02-L with Mask2Former, where paper 000's table 1 has EVA-01: single frames, segmentation loss alone.

    python -m vspw_jax.main --config=configs/mask2former_eva02.py --config.data.records=DIR   no VSPW score
    python -m vspw_jax.main --config=configs/mask2former_eva02.py:demo                        generated data, a laptop

Every value carries its source, here or in configs/parts/: "paper" is arXiv 2306.03508;
"EVA-02" is baaivision/EVA EVA-02/seg/configs/eva02/upernet/upernet_eva02_large_24_512_slide_80k.py, whose released
networks have UperNet (models.upernet() in place of the decoder); "released" and "CFFM" are as in configs/baseline.py,
whose settings these are.
"""

from ml_collections import ConfigDict

from configs.parts import data, losses, models, running, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at its published size, or at one that a laptop trains in minutes (size "demo")."""
    config = ConfigDict()
    config.seed = 0
    config.init_from = ""  # A PyTorch checkpoint that a new workdir starts from: EVA-02-L's, such as eva02_L_*_p14to16.
    config.init_from_key = ""  # Which weights of that file, such as "state_dict_ema"; empty: the trained ones.
    config.task = training.supervised()
    # Paper section 3.2: crop 480; multiples of 16.
    config.model = models.network(models.eva02_large(), models.mask2former(), image_size=(480, 480))
    config.loss = ConfigDict()
    config.loss.weight = 1.0  # Lambda 1 of equation 3, paper section 2.5.
    config.loss.segmentation = losses.mask_classification()
    # Paper section 3.2 and released; the decays are released, and EVA-02's too.
    config.optimizer = training.adamw(learning_rate=2e-5, weight_decay=0.05, layer_decay=0.9)
    config.optimizer.embeddings_at_layer_0 = True  # An oddity of the released code; see optimizers.layer_scales.
    config.schedule = training.poly(power=1.0, warmup_steps=1500)  # Paper, released, EVA-02.
    config.train = training.steps(40_000, batch=4)  # Paper: 2 GPUs with 2 images each.
    config.sharding = training.devices()
    config.data = data.vspw(base_size=(853, 480))  # CFFM: Resize (853, 480), the size of VSPW-480p.
    config.evaluate = running.evaluate(stride=(320, 320), double_softmax=True)  # Released, 480 configs.
    config.run = running.run()
    return sizes.sized(config, size, sizes.shrink_eva)
