"""Weights of classes from the data or a file: the formula, several data sets, runs that go on, bad files."""

import json
import math
import types

import numpy as np
import pytest

from configs import mdp_finetune, nce
from vspw_jax.checkpoints import run_identity
from vspw_jax.classes.class_list import ClassList
from vspw_jax.classes.class_union import Part
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture
from vspw_jax.losses import checks
from vspw_jax.training import class_weights

COLOURS = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
CLASSES = ClassList(("road", "sky", "pole"), COLOURS, COLOURS)


def member(pixels, draws, part=None):
    counts = np.zeros(255, np.int64)
    counts[: len(pixels)] = pixels
    frames = types.SimpleNamespace(pixels_K=counts)
    return types.SimpleNamespace(frames=frames, draws=lambda num_frames: draws, part=part, classes=CLASSES)


def recipe(source, num_classes=3):
    config = mdp_finetune.get_config("demo")
    config.model.num_classes = num_classes
    config.loss.segmentation.class_weight_from = str(source)
    return config.lock()


def weights(config, *members):
    return class_weights.of_data(config, members).loss.segmentation.class_weight


def test_rare_classes_weigh_more_and_a_pixel_weighs_1_on_average():
    pixels = (700, 290, 10)
    found = weights(recipe("inverse_log"), member(pixels, 5))
    unscaled = [1 / math.log(1.05 + share / 1000) for share in pixels]
    mean = sum(weight * share / 1000 for weight, share in zip(unscaled, pixels, strict=True))
    assert found == pytest.approx([weight / mean for weight in unscaled])
    assert found[0] < 1 < found[2] and np.dot(found, pixels) == pytest.approx(1000)


def test_data_sets_count_as_often_as_they_are_drawn_each_with_its_own_classes():
    """The second one's two classes are the network's 1 and 2; its frames are large, and drawn a third as often."""
    second = member((1000, 3000), 1, Part("other", CLASSES, first=1))
    shares = class_weights.shares_of_pixels([member((1, 1), 3), second], 2, 4)
    assert shares == pytest.approx([0.75 * 0.5, 0.75 * 0.5 + 0.25 * 0.25, 0.25 * 0.75, 0])
    assert all(map(math.isfinite, class_weights.inverse_log(shares)))  # Of a class that never occurs, too.


def test_pixels_are_those_of_the_masks(generated_records):
    config = nce.get_config("demo").data
    config.records, config.mixture = str(generated_records), {}
    (found,) = mixture.members(config)
    frames = found.frames
    labels = [frames.label(frames[number]) for video in frames.videos for number in video_range(video)]
    expected = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
    np.testing.assert_array_equal(frames.pixels_K, expected[:255])


def video_range(video):
    return range(video.start, video.start + video.count)


def test_a_file_holds_a_list_or_names(tmp_path):
    for content in ([1, 0.5, 4], {"pole": 4, "road": 1, "sky": 0.5}):
        (tmp_path / "weights.json").write_text(json.dumps(content))
        assert weights(recipe(tmp_path / "weights.json"), member((1, 1, 1), 1)) == (1, 0.5, 4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "expected inverse_log, or a file; there is none of that name"),
        ("[1, 2", "cannot be read as JSON"),
        ("[1, 2]", "expected 3 numbers"),
        ("[1, 2, -1]", "expected 3 numbers"),
        ("[1, 2, NaN]", "expected 3 numbers"),
        ("[1, 2, true]", "expected 3 numbers"),
        ("[0, 0, 0]", "expected 3 numbers"),
        ("7", "expected 3 numbers"),
        ('{"road": 1, "sky": 1, "poles": 2}', "It lacks pole, and has poles"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, content, said):
    path = tmp_path / "weights.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said):
        weights(recipe(path), member((1, 1, 1), 1))


def test_without_a_source_the_recipe_stays_as_it_is():
    config = recipe("")
    assert class_weights.of_data(config, []) is config


def test_weights_and_a_source_of_them_are_refused():
    config = recipe("inverse_log").unlock()
    config.loss.segmentation.class_weight = (1.0, 2.0, 3.0)
    with pytest.raises(UserError, match="has 3 weights, and class_weight_from is 'inverse_log'"):
        checks.check_losses(config, num_maps=4, kind="per_pixel")


def test_a_run_goes_on_with_its_weights_alone(tmp_path):
    """Evaluating takes any data; training on other weights is refused; a replay has the run's."""
    config, other = recipe("inverse_log"), recipe("")
    run = class_weights.of_data(config, [member((700, 290, 10), 5)])
    run_identity.claim_workdir(tmp_path, run, {})
    run_identity.claim_workdir(tmp_path, run, {})
    run_identity.check_workdir(tmp_path, config)
    again = class_weights.of_workdir(config, tmp_path)
    assert again.loss.segmentation.class_weight == run.loss.segmentation.class_weight
    with pytest.raises(UserError, match="class_weight"):
        run_identity.claim_workdir(tmp_path, class_weights.of_data(config, [member((600, 390, 10), 5)]), {})
    with pytest.raises(UserError, match="class_weight_from: inverse_log there, None now"):
        run_identity.check_workdir(tmp_path, other)
    assert class_weights.of_workdir(other, tmp_path) is other


def test_a_run_from_before_there_was_a_source_is_known(tmp_path):
    config = recipe("")
    run_identity.claim_workdir(tmp_path, config, {})
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    del fields["loss.segmentation.class_weight_from"]
    path.write_text(json.dumps(fields))
    run_identity.claim_workdir(tmp_path, config, {})


def test_a_file_that_is_not_there_is_found_without_data():
    class_weights.check_file(recipe("inverse_log"))
    with pytest.raises(UserError, match="class_weight_from is 'gone.json': .*there is none of that name"):
        class_weights.check_file(recipe("gone.json"))
