"""What can be wrong with a recipe that pretrains by prototypes, found before anything is compiled."""

from ml_collections import ConfigDict

from vspw_jax.console.errors import UserError, choose
from vspw_jax.data import mixing, views

TASK = "prototype_pretraining"
VIEWS = dict.fromkeys(("first", "second", "mixed"))
SECTION = "prototypes"
TWO_VIEWS = ("two", "two_frames")


def check(config: ConfigDict) -> None:
    """Raises UserError where a whole config does not fit the task."""
    check_sections(config)
    check_views(config.loss.prototypes)
    check_bank(config)
    check_mixing(config)


def check_sections(config: ConfigDict) -> None:
    """Raises UserError where there are other losses, or what the task reads is not there."""
    losses = [name for name, section in config.loss.items() if isinstance(section, ConfigDict)]
    if losses != [SECTION]:
        raise UserError(
            f"task.name is {TASK!r} and config.loss has the sections {', '.join(losses) or 'none'}: expected "
            f"{SECTION} alone, config.loss.prototypes = parts.losses.prototypes(), as configs/mdp.py has it."
        )
    if config.data.views not in TWO_VIEWS:
        raise UserError(
            f"data.views is {config.data.views!r}: expected {' or '.join(TWO_VIEWS)}, as the task {TASK} "
            "contrasts two views of a clip. Set --config.data.views=two."
        )
    if not config.model.get("projection", {}).get("dim") or "bank" not in config.model:
        raise UserError(
            f"The task {TASK} reads a projection and a bank: expected config.model.projection of a dim above 0 and "
            "config.model.bank, as configs/mdp.py has them."
        )


def check_views(fields: ConfigDict) -> None:
    """Raises UserError where a view is unknown or none counts."""
    for name in fields.sparse_views:
        choose(VIEWS, name, "loss.prototypes.sparse_views")
    for name in fields.mixing:
        choose(mixing.MIXINGS, name, "loss.prototypes.mixing")
    if not any(fields.weights.values()):
        raise UserError(
            "Every weight of loss.prototypes.weights is 0: expected one above 0, such as "
            "--config.loss.prototypes.weights.first=1."
        )


def check_bank(config: ConfigDict) -> None:
    """Raises UserError where the bank has no room for a batch, or a field asks for another one."""
    bank, fields = config.model.bank, config.loss.prototypes
    shown = views.frames_shown(config.data)
    images = 2 * config.train.batch * shown
    if bank.kind == "region" and bank.images < images:
        raise UserError(
            f"model.bank.images is {bank.images}, but a step brings {images} ({config.train.batch} clips of "
            f"{shown} frames, two views of each): expected {images} or more. Set "
            f"--config.model.bank.images={images}, or lower --config.train.batch."
        )
    if fields.sparse_views and bank.kind != "class":
        raise UserError(
            f"loss.prototypes.sparse_views is {tuple(fields.sparse_views)}, but model.bank.kind is {bank.kind!r}: "
            "sparse coding needs prototypes of classes. Set --config.loss.prototypes.sparse_views='()'."
        )


def check_mixing(config: ConfigDict) -> None:
    """Raises UserError where the mixed view cannot be made or has nothing to be contrasted with."""
    fields = config.loss.prototypes
    if not fields.weights.mixed:
        return
    off = "Leave the mixed view out by --config.loss.prototypes.weights.mixed=0"
    if config.model.bank.kind == "none":
        raise UserError(
            f"loss.prototypes.weights.mixed is {fields.weights.mixed}, but without a bank pixels are contrasted with "
            f"the other view, and a mixed view has none. {off}."
        )
    if not fields.mixing:
        raise UserError(f"loss.prototypes.mixing is empty: expected cutmix, mixup or both. {off}, or name one.")
    clips = config.train.batch // config.train.accumulate
    if clips < 2:
        raise UserError(
            f"A pass in training has {clips} clip (train.batch {config.train.batch}, train.accumulate "
            f"{config.train.accumulate}): expected 2 or more, as clips are mixed with each other. {off}, or set "
            f"--config.train.batch={2 * config.train.accumulate}."
        )
