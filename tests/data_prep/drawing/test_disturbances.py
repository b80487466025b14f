"""Disturbed video: frames that need their neighbours, with the labels of the scene as it is."""

import cv2
import numpy as np
import pytest

from data_prep.drawing import disturbances, scenes

FRAMES, HEIGHT, WIDTH = 8, 60, 96
CLIPS = range(6)
VIEW = disturbances.View((HEIGHT, WIDTH), ("car", "person"), "typical")


def clip(number, name="drawn"):
    return scenes.clip(0, number, FRAMES, HEIGHT, WIDTH, disturbances=name)


@pytest.fixture(scope="module")
def plain():
    return [scenes.clip(0, number, FRAMES, HEIGHT, WIDTH) for number in CLIPS]


@pytest.fixture
def disturbed(plain, monkeypatch):
    """disturbed(kind): (image, label, plain image, plain label) of all frames that it disturbs, in steady light.

    All others are as without.
    """

    def frames(kind):
        plans = []
        draw = lambda *given: plans.append(disturbances.drawn(*given)) or plans[-1]
        monkeypatch.setattr(disturbances, "KINDS", (kind,))
        monkeypatch.setattr(disturbances, "drift", lambda rng, num_frames: np.ones((num_frames, 3), np.float32))
        monkeypatch.setitem(disturbances.DISTURBANCES, "drawn", draw)
        drawn = [(*clip(number), *plain[number]) for number in CLIPS]
        found = []
        for plan, arrays in zip(plans, drawn, strict=True):
            for disturbance, image, label, plain_image, plain_label in zip(plan, *arrays, strict=True):
                if is_disturbed(disturbance):
                    found.append((image, label, plain_image, plain_label))
                else:
                    np.testing.assert_array_equal(image, plain_image)
                    np.testing.assert_array_equal(label, plain_label)
        assert 0.2 < len(found) / (len(CLIPS) * FRAMES) < 0.6
        return found

    return frames


def is_disturbed(disturbance):
    """Whether it is more than the light's drift."""
    return bool(disturbance.passer) or disturbance.kernel is not None or not 0.2 < disturbance.light[1] < 2


def detail(image):
    """How much neighbouring pixels differ, but for noise."""
    return np.abs(cv2.Laplacian(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 2), cv2.CV_32F)).mean()


def test_none_is_the_default_and_leaves_the_scene_alone(plain):
    for found, expected in zip(clip(4, "none"), plain[4], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [disturbances.moved, disturbances.defocused])
def test_blurred_frames_have_no_detail_and_the_labels_of_the_scene(disturbed, kind):
    for image, label, plain_image, plain_label in disturbed(kind):
        np.testing.assert_array_equal(label, plain_label)
        assert detail(image) < 0.6 * detail(plain_image)


@pytest.mark.parametrize("kind", [disturbances.dark, disturbances.overexposed])
def test_dark_and_overexposed_frames_show_little_and_have_the_labels_of_the_scene(disturbed, kind):
    for image, label, _, plain_label in disturbed(kind):
        np.testing.assert_array_equal(label, plain_label)
        assert np.percentile(image, 95) < 25 if kind is disturbances.dark else (image == 255).mean() > 0.4


def test_what_passes_is_large_and_has_its_own_class_and_nothing_else_changes(disturbed):
    shares = []
    for image, label, plain_image, plain_label in disturbed(disturbances.passing):
        is_passer = label != plain_label
        assert set(label[is_passer].tolist()) <= {scenes.CLASSES.index(name) for name in scenes.PASSERS}
        far = ~cv2.dilate(np.isin(label, label[is_passer]).astype(np.uint8), np.ones((7, 7))).astype(bool)
        upper = far & (np.arange(HEIGHT)[:, None] < HEIGHT / 2)  # On the ground is its shadow.
        np.testing.assert_array_equal(image[upper], plain_image[upper])
        shares.append(is_passer.mean())
    assert np.mean(shares) > 0.2


def test_stretches_are_short_and_the_first_frame_is_clear():
    for number in range(30):
        plan = disturbances.drawn(np.random.default_rng(number), FRAMES, VIEW)
        stretches = "".join(" x"[is_disturbed(disturbance)] for disturbance in plan)
        assert stretches[0] == " " and 1 <= max(map(len, stretches.split())) <= 3


def test_light_drifts_from_one_end_of_a_video_to_the_other():
    for number in range(20):
        light = disturbances.drift(np.random.default_rng(number), 30)
        steps = np.diff(np.log(light), axis=0)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-6)
        assert np.ptp(light.mean(axis=1)) > 0.25


def test_same_seed_same_clip_other_video_other_disturbances():
    first, again = clip(0), clip(0)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    lights = [disturbances.drawn(np.random.default_rng([0, number, 1]), FRAMES, VIEW)[0].light for number in (0, 3)]
    assert not np.array_equal(*lights)


def test_the_smallest_and_single_frames_are_drawn():
    for number in CLIPS:
        for frames in (1, 9):
            images, labels = scenes.clip(0, number, frames, 8, 8, disturbances="drawn")
            assert images.shape == (frames, 8, 8, 3) and labels.shape == (frames, 8, 8)
