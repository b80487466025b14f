"""The pretraining of configs/mdp.py for Swin-B with UperNet; configs/upernet_swin.py starts from its workdir.

    python -m vspw_jax.main --config=configs/mdp_swin.py --config.data.records=DIR    full size; no published score
    python -m vspw_jax.main --config=configs/mdp_swin.py:demo                         generated data, a laptop
    python -m vspw_jax.main --config=configs/upernet_swin.py:demo --config.init_from=runs/mdp_swin_demo

The paper, Multi-dataset Pretraining (arXiv 2106.04121), has a ResNet-50 alone. What does not stand here is as in
configs/mdp.py; "mmseg" is as in configs/upernet_swin.py, "ours" a choice of this codebase.
"""

from ml_collections import ConfigDict

from configs import mdp
from configs.parts import models, sizes, training


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at full size, or at one that a laptop trains in minutes (size "demo")."""
    model = models.network(models.swin_base(), models.upernet(), image_size=(224, 224))
    model.decoder.update(dim=512, auxiliary_dim=0)  # mmseg's width; no auxiliary head, as in the paper.
    config = mdp.pretraining(model)
    # SGD of 0.2 does not train a transformer. Ours: mmseg's AdamW, of fine-tuning; the schedule is the paper's.
    config.optimizer = training.adamw(learning_rate=6e-5, weight_decay=0.01)
    config.schedule = training.cosine(warmup_steps=1500)
    return sizes.sized(config, size, lambda config: mdp.shrink(config, sizes.shrink_swin))
