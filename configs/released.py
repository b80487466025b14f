"""Any network that a released checkpoint holds, to predict with: what --config.init_from=FILE without --config takes.

    python -m vspw_jax.main --mode=predict --input=clip.mp4 --config.init_from=FILE

The network and the number of its classes are read off the file; until then they are those of configs/upernet_swin.py,
as all else is.
"""

from ml_collections import ConfigDict

from configs import upernet_swin
from configs.parts import losses


def get_config(size: str = "full") -> ConfigDict:
    """The recipe at the size of configs/upernet_swin.py's that is asked for."""
    config = upernet_swin.get_config(size)
    config.run.compile_to_inspect = False  # A file is looked at, not a step.
    return config


def with_network(config: ConfigDict, model: ConfigDict, loss: str) -> ConfigDict:
    """The recipe with `config.model`, and with what depends on it.

    Args:
      loss: name of a part of configs/parts/losses.py, that which the network's decoder is trained with.
    """
    config = config.copy_and_resolve_references()
    config.model = model
    segmentation = config.loss.segmentation = getattr(losses, loss)()
    if "capacity" in segmentation:
        segmentation.capacity = min(segmentation.capacity, model.decoder.num_queries)
    # Windows overlap by a third, as in the other recipes.
    config.evaluate.stride = tuple(max(side * 2 // 3, 1) for side in model.image_size)
    return config
