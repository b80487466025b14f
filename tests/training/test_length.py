"""The length of a run and of its beginnings: so many steps, or so many times through its data."""

import copy
import math
import re

import pytest

from configs import mcibi, memory_a, memory_b
from configs.parts import semi_supervised
from vspw_jax.checkpoints import run_identity
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture
from vspw_jax.evaluation import evaluate
from vspw_jax.training import length, loop, optimizers


@pytest.fixture
def config(small_config):
    small_config.train.update(batch=8, steps=1, epochs=11)
    small_config.run.update(save_every=1000, picture_every=1000)
    return small_config


def epoch_of(config):
    videos = mixture.members(config.data)[0].frames.videos
    return len(videos), sum(video.count for video in videos)


def test_epochs_count_videos_or_frames_as_the_data_does(config):
    videos, frames = epoch_of(config)
    members = mixture.members(config.data)
    assert length.of_data(config, members).train.steps == math.ceil(11 * videos / 8)
    config.data.epoch = "frame"
    members = mixture.members(config.data)
    of_frames = length.of_data(config, members)
    assert of_frames.train.steps == math.ceil(11 * frames / 8) != math.ceil(11 * videos / 8)
    assert length.described(of_frames, members).startswith(f"11 epochs of {frames} clips, 8 a step: ")
    config.train.epochs = 0
    assert length.of_data(config, members) is config
    assert length.described(config, members).startswith(f"1 steps of 8 clips: {8 / frames:.4g} epochs of {frames}.")


def test_a_run_makes_the_steps_of_its_epochs_and_goes_on(config, without_network, tmp_path):
    """Schedule, log and what is said of unfinished weights have the same number, from one start to the next."""
    steps = math.ceil(11 * epoch_of(config)[0] / 8)
    assert steps > config.train.steps == 1
    without_network(loss=1.0)
    assert loop.train(config, tmp_path / "run")["step"] == steps
    log = (tmp_path / "run" / "logs" / "process_0.log").read_text()
    assert re.search(rf"11 epochs of .* clips, 8 a step: {steps} steps", log)
    members = mixture.members(config.data)
    again = length.of_data(config, members)
    run_identity.claim_workdir(tmp_path / "run", again, mixture.identity(members))
    run_identity.check_workdir(tmp_path / "run", config)

    elsewhere = copy.deepcopy(config)
    elsewhere.data.records = "nowhere"
    found = length.of_workdir(elsewhere, tmp_path / "run")
    assert found.train.steps == steps and length.of_workdir(elsewhere, tmp_path / "none") is elsewhere
    assert evaluate.unfinished(found, steps, {}) == []
    assert f"step 1 of {steps}" in evaluate.unfinished(found, 1, {})[0]
    rate = optimizers.learning_rate(found)
    assert rate(steps) == 0 < rate(steps - 1)

    config.train.epochs = 12
    with pytest.raises(UserError, match="holds a run of another config"):
        loop.train(config, tmp_path / "run")


def test_more_steps_than_can_be_counted_are_refused(config):
    config.data.epoch, config.train.epochs, config.train.batch = "frame", 10**6, 1
    members = mixture.members(config.data)
    many = [members[0]] * 1000
    with pytest.raises(UserError, match="train.epochs is 1000000: .* expected at most 2147483647"):
        length.of_data(config, many)


def test_steps_that_a_flag_asks_for_are_made_though_the_recipe_counts_epochs(config):
    config.lock()
    length.heed_flags(config, {"train.batch"})
    assert config.train.epochs == 11
    with pytest.raises(UserError, match="both say how long the same is. Leave one out"):
        length.heed_flags(config, {"train.steps", "train.epochs"})
    length.heed_flags(config, {"train.steps"})
    assert (config.train.epochs, config.train.steps) == (0, 1)


def test_what_begins_or_ends_after_an_epoch_follows_the_data(config, tmp_path):
    """Whatever the length of the run; a flag in steps counts steps, and the workdir's numbers come back."""
    full = memory_a.get_config()
    full.data, full.train.steps, full.train.epochs, full.train.batch = config.data, 9, 0, 4
    full.model.decoder.truth_epochs = 3
    members = mixture.members(full.data)
    videos = epoch_of(config)[0]
    made = length.of_data(full.lock(), members)
    assert (made.train.steps, made.loss.segmentation.memory_start_step) == (9, math.ceil(videos / 4))
    assert made.model.decoder.truth_steps == math.ceil(3 * videos / 4)

    run_identity.claim_workdir(tmp_path, made, {})
    run_identity.check_workdir(tmp_path, full)
    assert length.of_workdir(full, tmp_path) == made
    full.model.decoder.truth_steps = 1
    length.heed_flags(full, {"model.decoder.truth_steps"})
    assert (full.model.decoder.truth_epochs, full.loss.segmentation.memory_start_epoch) == (0, 1)
    assert length.of_data(full, members).model.decoder.truth_steps == 1
    with pytest.raises(UserError, match="holds a run of another config"):
        run_identity.check_workdir(tmp_path, full)


def test_a_teacher_begins_after_an_epoch_of_the_labelled_clips(config):
    """As many of a step's clips have labels as without a teacher."""
    config = semi_supervised.with_teacher(config, "full")
    members = mixture.members(config.data)
    assert config.train.batch == 16 and len(members) == 2
    assert length.of_data(config, members).task.start_step == math.ceil(epoch_of(config)[0] / 8)


def test_demos_state_steps():
    for recipe, steps in ((memory_a, 60), (memory_b, 30), (mcibi, 30)):
        config = recipe.get_config("demo").lock()
        assert length.of_data(config, []) is config and config.loss.segmentation.memory_start_step == steps
        assert config.model.decoder.get("truth_steps", steps) == steps
