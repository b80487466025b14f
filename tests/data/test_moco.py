"""MoCo v2's two views: the parts of a frame that they show, and labels that stay under their pixels."""

import numpy as np
import pytest

from configs import nce
from vspw_jax.console.errors import UserError
from vspw_jax.data import colour_jitter, moco, pipeline, records, transforms, views

CROP = (32, 40)
PLAIN = colour_jitter.Colours()


def levels(normalised):
    return normalised * transforms.IMAGE_STD + transforms.IMAGE_MEAN


def shown(view, image, label):
    out = np.empty((*view.crop, 3), np.float32), np.empty(view.crop, np.int32)
    view.show(image, label, *out)
    return levels(out[0]), out[1]


def over_crop(of_axis, axis):
    return np.broadcast_to(of_axis.reshape([(-1, 1), (1, -1)][axis]), CROP)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("height", "width"), [(60, 80), (25, 30), (240, 200)])
def test_every_label_is_that_of_its_pixel(height, width, seed):
    """Image and label hold a pixel's column, then its row: larger and smaller than the crop, flipped and not."""
    view = moco.random_view((height, width), CROP, np.random.default_rng(seed))
    view = moco.View(view.box, CROP, seed % 2 == 1, PLAIN)
    for axis, (first, length, crop) in enumerate(
        [(view.box.top, view.box.height, CROP[0]), (view.box.left, view.box.width, CROP[1])]
    ):
        place = np.broadcast_to(np.arange([height, width][axis]).reshape([(-1, 1), (1, -1)][axis]), (height, width))
        image, label = shown(view, np.stack([place.astype(np.uint8)] * 3, -1), place.astype(np.uint8))
        centre = first + (np.arange(crop) + 0.5) * length / crop
        centre = centre[::-1] if view.flipped and axis == 1 else centre
        np.testing.assert_array_equal(label, over_crop(np.floor(centre), axis))
        # Pixel n spans n to n + 1. Beyond the box's edge there is nothing to blend with.
        edge = int(np.ceil(crop / length)) + 1
        inner = (slice(edge, -edge),) * 2
        np.testing.assert_allclose(image[inner][..., 0], over_crop(centre, axis)[inner] - 0.5, atol=0.51)


def test_boxes_are_of_every_size_and_aspect_that_moco_allows():
    rng = np.random.default_rng(0)
    boxes = [moco.random_box(300, 300, rng) for _ in range(2000)]
    area = np.array([box.height * box.width for box in boxes]) / 300**2
    aspect = np.array([box.width / box.height for box in boxes])
    assert 0.195 < area.min() < 0.21 and 0.9 < area.max() <= 1
    assert 0.74 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.35
    assert abs(np.log(aspect).mean()) < 0.02
    assert {box.top == 0 for box in boxes} == {True, False}
    assert all(box.top + box.height <= 300 and box.left + box.width <= 300 for box in boxes)
    # No draw fits a strip: the largest part in its middle of the nearest aspect.
    assert moco.random_box(20, 2000, rng) == moco.Box(0, (2000 - 27) // 2, 20, 27)
    assert moco.random_box(2000, 21, rng) == moco.Box((2000 - 28) // 2, 0, 28, 21)


def test_a_batch_holds_both_views_the_same_from_any_step_on(generated_records):
    config = nce.get_config("demo").data
    config.records, config.views, config.frames = str(generated_records), "two", 2

    def batches(first_step):
        stream = pipeline.training_batches(config, 4, CROP, seed=5, first_step=first_step)
        try:
            return [next(stream) for _ in range(2)]
        finally:
            stream.close()

    (_, second), (again, _) = batches(0), batches(1)
    like = views.shapes(config, CROP, 4)
    assert {name: (x.shape, x.dtype) for name, x in second.items()} == {n: (x.shape, x.dtype) for n, x in like.items()}
    for name, value in second.items():
        np.testing.assert_array_equal(value, again[name])
    assert np.abs(second["image_BTHWC"] - second["second_image_BTHWC"]).mean() > 0.1
    assert (second["label_BTHW"] != second["second_label_BTHW"]).mean() > 0.1
    assert set(np.unique(second["second_label_BTHW"])) <= {*range(124), 255}


def test_two_frames_of_a_clip_are_its_two_views(generated_records, monkeypatch):
    """With a view that shows a frame as it is: each view has the frames of its half of the clip, and their labels."""
    config = nce.get_config("demo").data
    config.records, config.views, config.frames, config.frame_gap = str(generated_records), "two_frames", 4, 2
    whole = lambda frame, *_: moco.View(moco.Box(0, 0, *frame), CROP, False, PLAIN)
    monkeypatch.setattr(moco, "random_view", whole)
    frames = records.Frames(generated_records, "train")
    shown_as = {}
    for video in frames.videos:
        for number in range(video.start, video.start + video.count):
            record = frames[number]
            label = frames.label(record)
            image, label = shown(whole(label.shape), frames.image(record, label), label)
            shown_as[image.tobytes()] = video.name, number, label
    stream = pipeline.training_batches(config, 4, CROP, seed=5)
    batch = next(stream)
    stream.close()
    assert batch["image_BTHWC"].shape == batch["second_image_BTHWC"].shape == (4, 2, *CROP, 3)
    for clip in range(4):
        images = [*batch["image_BTHWC"][clip], *batch["second_image_BTHWC"][clip]]
        labels = [*batch["label_BTHW"][clip], *batch["second_label_BTHW"][clip]]
        found = [shown_as[levels(image).tobytes()] for image in images]
        assert len({video for video, _, _ in found}) == 1
        first = found[0][1]
        gap = found[1][1] - first
        assert [number for _, number, _ in found] == [first + gap * place for place in range(4)] and gap > 0
        for (_, _, expected), label in zip(found, labels, strict=True):
            np.testing.assert_array_equal(expected, label)


def test_a_single_image_is_both_of_its_views(image_records):
    config = nce.get_config("demo").data
    config.records, config.views, config.frames = str(image_records), "two_frames", 2
    stream = pipeline.training_batches(config, 4, CROP, seed=5)
    batch = next(stream)
    stream.close()
    assert batch["image_BTHWC"].shape == (4, 1, *CROP, 3)
    for first, second in zip(batch["label_BTHW"], batch["second_label_BTHW"], strict=True):
        classes = set(np.unique(first)) & set(np.unique(second))
        assert classes - {255}, "two parts of one image hold no class in common"
    assert (batch["image_BTHWC"] != batch["second_image_BTHWC"]).any(axis=(1, 2, 3, 4)).all()


def test_frames_that_two_views_cannot_divide_are_refused():
    config = nce.get_config("demo").data
    config.views, config.frames = "two_frames", 3
    with pytest.raises(UserError, match=r"data.frames is 3.*expected a multiple of 2.*--config.data.frames=2"):
        views.check(config)
