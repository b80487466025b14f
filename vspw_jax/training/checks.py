"""All that can be wrong with a recipe's values, looked for in one place before anything is made or compiled.

What a field alone may be is in `ranges.py`. A check that needs two fields, or that knows which names there are, stands
beside what it checks.
"""

import pathlib

from ml_collections import ConfigDict

from vspw_jax.checkpoints import beginning
from vspw_jax.classes.class_list import MOST, VOID
from vspw_jax.console import ranges
from vspw_jax.console.errors import UserError, choose
from vspw_jax.console.recipe_file import flatten, sections
from vspw_jax.data import clips, labelled_frames, mixture, records, views
from vspw_jax.evaluation import stages
from vspw_jax.evaluation.evaluate import split_of
from vspw_jax.inference import predictor
from vspw_jax.losses.checks import CONTRASTS
from vspw_jax.models import segmenter
from vspw_jax.observe import profiling
from vspw_jax.tasks import task
from vspw_jax.training import class_weights, non_finite, optimizers, train_state, weight_average

SECTIONS = (
    *("task", "model", "model.encoder", "model.decoder", "loss", "optimizer", "schedule"),
    *("train", "sharding", "data", "data.augment", "data.mixture", "evaluate", "run"),
)
"""That every recipe has."""

AFTERWARDS = dict.fromkeys(("evaluate", "predict"))
"""What `run.afterwards` may name."""


def check_parts(config: ConfigDict) -> None:
    """Raises UserError where a recipe lacks a section or a field."""
    found = sections(config)
    missing = [section for section in SECTIONS if section not in found]
    if missing:
        raise UserError(
            f"The recipe has no section {', '.join(missing)}: expected all of {', '.join(SECTIONS)}. Take it from "
            "configs/parts/, as configs/baseline.py does."
        )
    fields = flatten(config)
    expected = [
        f"{section}.{name}" if section else name
        for section in ("", *found)
        if not section.startswith("loss.segmentation")  # Whose fields the decoder decides.
        for name in sorted(ranges.section_fields(section))
    ]
    lacking = [name for name in expected if name not in fields]
    if lacking:
        raise UserError(
            f"The recipe has no field {', '.join(lacking)}. Take the section from configs/parts/, as "
            "configs/baseline.py does."
        )


def check_recipe(config: ConfigDict) -> None:
    """Checks a whole config against itself; it needs no data.

    Raises:
      UserError: what was found, what was expected, and the flag that mends it.
    """
    check_parts(config)
    ranges.check_values(flatten(config))
    for mode in config.run.afterwards:
        choose(AFTERWARDS, mode, "run.afterwards")
    beginning.check(config)
    clips.check(config.data)
    labelled_frames.check(config.data)
    views.check(config.data)
    segmenter.check(config.model)
    task.check(config)
    for mode in config.run.afterwards:
        task.check_predicts(config, f"run.afterwards asks for {mode}")
    check_many_classes(config)
    weight_average.check(config, task.needs_teacher(config))
    optimizers.check(config)
    non_finite.allowed(config.run)
    profiling.check(config.run.profile_steps)
    stages.check(config)
    predictor.check_options(config.evaluate, tuple(config.model.image_size), config.model.num_classes)


def check_many_classes(config: ConfigDict) -> None:
    """Raises UserError for more classes than a byte tells apart, where those are not told apart or not meant."""
    number, decoder = config.model.num_classes, segmenter.decoder_of(config.model)
    if number <= MOST:
        return
    if not mixture.has_own_classes(config.data):
        raise UserError(
            f"model.num_classes is {number}: expected 1 to {MOST}, as {VOID} is void. Only several data sets together, "
            "with --config.data.classes=union, have more."
        )
    in_bytes = [f"loss.{name}" for name in CONTRASTS if name in config.loss and config.loss[name].weight]
    if decoder.remembers or decoder.SEGMENTATION_LOSS == "memory_per_pixel":
        in_bytes.append(f"the decoder {config.model.decoder.name}")
    if in_bytes:
        raise UserError(
            f"The data sets have {number} classes together, and {' and '.join(in_bytes)} can tell apart {MOST}. Leave "
            "data sets out of config.data.mixture, set a loss's weight to 0, or choose another decoder."
        )


def check_start(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Checks what can be told before data is drawn: data that is not, devices that can share the batch, named files.

    Raises:
      UserError: what was found, what was expected, and the flag that mends it.
    """
    if not mixture.is_drawn(config.data):
        records.find(config.data.records)
    train_state.mesh_of_run(config)
    class_weights.check_file(config)
    beginning.check_there(workdir, config)


def check(config: ConfigDict) -> list[mixture.Member]:
    """As `check_recipe`, and against its data, which it opens.

    Returns:
      The data sets that it trains on.

    Raises:
      UserError: see `check_recipe`; no such data, or data that does not fit.
    """
    check_recipe(config)
    members = mixture.members(config.data)
    mixture.check_classes(members, config.model.num_classes)
    mixture.check_lengths(members, config.data)
    decoder = segmenter.decoder_of(config.model)
    mixture.check_labels(members, config.data, decoder.decoded_frames(config.model.decoder, config.data.frames))
    if decoder.least_frames(config.model.decoder) > 1:
        mixture.check_follow(members, config.model.decoder.name)
    check_evaluated(config)
    if "capacity" in config.loss.get("segmentation", {}):
        mixture.check_capacity(members, config.loss.segmentation.capacity)
    return members


def check_evaluated(config: ConfigDict) -> None:
    """Raises UserError where there is nothing to score the network on, or it looks back farther than those videos."""
    if task.predicts(config):
        split_of(config.data).check_truth()
    path, split = config.data.records, config.data.eval_split
    videos = records.read_metadata(path)["videos"].get(split)
    if "evaluate" in config.run.afterwards and videos:
        longest = max(count for _, count in videos)
        segmenter.decoder_of(config.model).check_longest(config.model.decoder, longest, f"{path} ({split})")
