"""All that can be wrong with a recipe's values, looked for in one place before anything is compiled.

Each check stands beside what it checks.
"""

from ml_collections import ConfigDict

from vspw_jax.data import mixture
from vspw_jax.inference import predictor
from vspw_jax.models import segmenter
from vspw_jax.tasks import task
from vspw_jax.training import non_finite, optimizers, weight_average


def check(config: ConfigDict) -> list[mixture.Member]:
    """Checks a whole config against itself and against its data, which it opens.

    Returns:
      The data sets that it trains on.

    Raises:
      UserError: what was found, what was expected, and the flag that mends it.
    """
    segmenter.check(config.model)
    task.check(config)
    weight_average.check(config, task.needs_teacher(config))
    optimizers.check(config)
    non_finite.allowed(config.run)
    predictor.check_options(config.evaluate, tuple(config.model.image_size), config.model.num_classes)
    members = mixture.members(config.data)
    mixture.check_classes(members, config.model.num_classes)
    if "capacity" in config.loss.segmentation:
        mixture.check_capacity(members, config.loss.segmentation.capacity)
    return members
