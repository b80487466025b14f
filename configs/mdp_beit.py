"""The pretraining of configs/mdp.py for BEiT-L with UperNet; configs/upernet.py starts from its workdir.

    python -m vspw_jax.main --config=configs/mdp_beit.py --config.data.records=DIR    full size; no published score
    python -m vspw_jax.main --config=configs/mdp_beit.py:demo                         generated data, a laptop
    python -m vspw_jax.main --config=configs/upernet.py:demo --config.init_from=runs/mdp_beit_demo

The paper, Multi-dataset Pretraining (arXiv 2106.04121), has a ResNet-50 alone. What does not stand here is as in
configs/mdp.py; "released" is as in configs/upernet.py, "ours" a choice of this codebase.
"""

from ml_collections import ConfigDict

from configs import mdp
from configs.parts import models, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at full size, or at one that a laptop trains in minutes (size "demo")."""
    model = models.network(models.beit_large(), models.upernet(), image_size=(224, 224))
    model.decoder.auxiliary_dim = 0  # As in the paper.
    config = mdp.pretraining(model)
    # SGD of 0.2 does not train a transformer. Ours: the released AdamW of fine-tuning, and one rate for all layers, as
    # nothing was trained before; with `init_from` set optimizer.layer_decay to 0.95. The schedule is the paper's.
    config.optimizer = training.adamw(learning_rate=2e-5, weight_decay=0.05)
    config.schedule = training.cosine(warmup_steps=1500)
    return sizes.sized(config, size, lambda config: mdp.shrink(config, sizes.shrink_upernet))
