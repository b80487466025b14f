"""Test-time augmentation against its definition written out in NumPy, with a stub for a network and with a real one."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import (
    baseline,
    deeplabv3,
    hrnet,
    mask2former_eva,
    mask2former_eva02,
    multi_dataset,
    nce,
    ocrnet,
    pne,
    segformer,
    upernet,
    upernet_focalnet,
    upernet_internimage,
    upernet_swin,
)
from vspw_jax.console.errors import UserError
from vspw_jax.data import transforms
from vspw_jax.inference import augmentation
from vspw_jax.inference.predictor import Predictor, check_options
from vspw_jax.models import segmenter
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import train_state

CROP, STRIDE = (32, 32), (20, 24)
ALL_VIEWS = augmentation.Options(STRIDE, 4, (0.75, 1.75), True, False)


def resize(x_HWC, height, width):
    """torch's bilinear interpolate(align_corners=False) in float64."""

    def weights(size, new):
        place = np.clip((np.arange(new) + 0.5) * size / new - 0.5, 0, size - 1)
        low = np.minimum(place.astype(int), max(size - 2, 0))
        matrix = np.zeros((new, size))
        matrix[np.arange(new), low] = 1 - (place - low)
        matrix[np.arange(new), np.minimum(low + 1, size - 1)] += place - low
        return matrix

    matrices = weights(x_HWC.shape[0], height), weights(x_HWC.shape[1], width)
    return np.einsum("ih,jw,hwc->ijc", *matrices, x_HWC, optimize=True)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def one_view(score, image_HWC, scale, mirrored, stride):
    """Scores (H, W, K) of one frame by one view: resize, mirror, pad, windows, and all of it undone."""
    own = image_HWC.shape[:2]
    factor = scale * max(CROP[0] / own[0], CROP[1] / own[1])
    height, width = (-(-int(side * factor + 0.5) // 32) * 32 for side in own)
    seen = resize(image_HWC, height, width)
    seen = seen[:, ::-1] if mirrored else seen
    padded = np.zeros((max(height, CROP[0]), max(width, CROP[1]), 3))
    padded[:height, :width] = seen
    total, count = 0, np.zeros((*padded.shape[:2], 1))
    starts = [
        sorted({min(start, size - crop) for start in range(0, size, step)})
        for size, crop, step in zip(padded.shape, CROP, stride, strict=False)
    ]
    for top, left in itertools.product(*starts):
        here = np.s_[top : top + CROP[0], left : left + CROP[1]]
        scores = np.zeros((*padded.shape[:2], score(padded[here]).shape[-1]))
        scores[here] = resize(score(padded[here]), *CROP)
        total, count[here] = total + scores, count[here] + 1
    scores = (total / count)[:height, :width]
    return resize(scores[:, ::-1] if mirrored else scores, *own)


def averaged(score, image_HWC, options):
    mirrored = (False, True) if options.flip else (False,)
    scores = [one_view(score, image_HWC, *view, options.stride) for view in itertools.product(options.scales, mirrored)]
    return np.mean([softmax(score) if options.double_softmax else score for score in scores], axis=0)


def stub(window_NHWC, numpy=np):
    """Positive scores of five classes at a quarter, from colours and from where in the window; not symmetric."""
    cells = window_NHWC.reshape(-1, CROP[0] // 4, 4, CROP[1] // 4, 4, 3).mean(axis=(2, 4))
    place = numpy.arange(CROP[1] // 4)[:, None] / 8 + numpy.zeros_like(cells[..., :1])
    return numpy.exp(numpy.concatenate([cells, place, cells[..., :1] * place], axis=-1))


def ours(image_NHWC, options, score=lambda window: stub(window, jnp)):
    function = lambda image: augmentation.map_scores(score, image, CROP, options, lambda scores: scores)
    return np.asarray(jax.jit(function)(jnp.asarray(image_NHWC, jnp.float32)))


@pytest.mark.parametrize(
    ("scales", "flip", "double_softmax"),
    [((1.0,), False, True), ((1.0,), True, False), ((1.25, 0.75), True, True)],
)
def test_equals_its_definition(scales, flip, double_softmax):
    images = np.random.default_rng(0).normal(size=(2, 37, 61, 3))
    options = augmentation.Options(STRIDE, 4, scales, flip, double_softmax)
    expected = [averaged(lambda window: stub(window[None])[0], image, options) for image in images]
    np.testing.assert_allclose(ours(images, options), expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 203), (111, 8), (1, 1)], ids=["wide", "tall", "a pixel"])
def test_frames_of_any_size(size):
    image = np.random.default_rng(0).normal(size=(1, *size, 3))
    expected = averaged(lambda window: stub(window[None])[0], image[0], ALL_VIEWS)
    np.testing.assert_allclose(ours(image, ALL_VIEWS)[0], expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 36])
@pytest.mark.parametrize("options", [ALL_VIEWS, augmentation.Options(STRIDE)], ids=["all views", "one view"])
def test_a_large_frame_is_finished_strip_by_strip(rows, options, monkeypatch):
    """With the same labels; the last strip, which the frame may not fill, too."""
    images = np.random.default_rng(0).normal(size=(2, 37, 61, 3))
    whole = ours(images, options)
    monkeypatch.setattr(augmentation, "MOST_SCORES", rows * 61 * 5 + 17)
    strips = ours(images, options)
    np.testing.assert_allclose(strips, whole, rtol=1e-5)
    np.testing.assert_array_equal(strips.argmax(-1), whole.argmax(-1))


def test_a_very_large_frame_takes_little_more_memory_than_its_strips():
    """4000x3000 pixels and 124 classes: as compiled, beside frame and labels; their scores would take 5.5 GiB."""
    frame = jax.ShapeDtypeStruct((1, 3000, 4000, 3), jnp.float32)
    score = lambda window: jnp.tile(stub(window, jnp), 25)[..., :124]
    labels = lambda scores: scores.argmax(axis=-1).astype(jnp.uint8)
    options = augmentation.Options(STRIDE)
    program = jax.jit(lambda image: augmentation.map_scores(score, image, CROP, options, labels)).lower(frame).compile()
    assert program.memory_analysis().temp_size_in_bytes < 5 * 4 * augmentation.MOST_SCORES


def test_the_mirror_image_changes_nothing_for_a_network_that_is_symmetric():
    images = np.random.default_rng(0).normal(size=(1, 32, 64, 3))
    symmetric = lambda window: jnp.exp(window)
    # One row of windows that lie symmetrically: 0, 16, 32.
    plain = augmentation.Options((32, 16), 4, (1.0,), False, False)
    np.testing.assert_allclose(
        ours(images, dataclasses.replace(plain, flip=True), symmetric), ours(images, plain, symmetric), rtol=1e-5
    )


def test_double_softmax_changes_averages_but_no_single_label():
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 3))
    labels = lambda **fields: ours(images, dataclasses.replace(ALL_VIEWS, **fields)).argmax(axis=-1)
    single = {"scales": (1.0,), "flip": False}
    np.testing.assert_array_equal(labels(**single), labels(**single, double_softmax=True))
    assert (labels() != labels(double_softmax=True)).any()


def test_a_real_network_on_two_devices():
    """Three frames, which two devices share unevenly, of an odd size; the smallest BEiT with UperNet."""
    config = upernet.get_config("demo")
    config.model.image_size, config.evaluate.stride = CROP, STRIDE
    config.model.encoder.update(dim=16, heads=2)
    config.model.decoder.update(dim=16, auxiliary_dim=8, pool_scales=(1, 2))
    config.evaluate.update(flip=True, scales=(0.75, 1.25), save_scores=True, batch=3)
    graphdef, _, _ = train_state.describe(config)
    made = Predictor(config, graphdef, make_mesh(devices=jax.devices()[:2]))
    build = jax.jit(lambda key: train_state.split_model(segmenter.build(config.model, key))[1:])
    params, model_state = build(jax.random.key(0))
    made.weights = {"params": params, "model_state": model_state}
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 41, 55, 3), np.uint8))
    result = made.start(frames)
    assert made.batch == 4 and result.labels().shape == (3, 41, 55)

    run = jax.jit(lambda weights, window: segmenter.class_scores(nnx.merge(graphdef, *weights)(window))[0, 0])
    score = lambda window: np.asarray(run((params, model_state), window.astype(np.float32)[None, None]), np.float64)
    options = augmentation.Options(STRIDE, 4, (0.75, 1.25), True, False)
    image = (frames[2] - transforms.IMAGE_MEAN) / transforms.IMAGE_STD
    expected = averaged(score, image, options)
    np.testing.assert_allclose(result.scores()[2].values, expected, rtol=2e-3)
    np.testing.assert_array_equal(result.labels()[2], np.asarray(expected).argmax(axis=-1))

    # A short batch is of the same program.
    np.testing.assert_array_equal(made(frames[2:])[0], result.labels()[2])
    assert made._predict._cache_size() == 1


def test_a_real_network_gives_the_scores_that_flow_smooths():
    """On two devices, with the second softmax of query decoders; and its predictions are told from others."""
    config = nce.get_config("demo")
    config.model.image_size, config.evaluate.stride = (32, 32), (32, 32)
    config.evaluate.update(batch=3, flow_weight=0.5)
    graphdef, params, model_state = train_state.describe(config)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), {"params": params, "model_state": model_state})
    made = Predictor(config, graphdef, make_mesh(devices=jax.devices()[:2]), zeros)
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8))
    result = made.start(frames)
    scores = np.stack(result.full_scores())
    assert scores.shape == (3, 32, 40, config.model.num_classes) and scores.dtype == np.float16
    np.testing.assert_allclose(scores.astype(np.float32).sum(-1), 1, atol=5e-3)
    assert made._needed().double_softmax and made.identity()["flow_weight"] == 0.5
    config.evaluate.flow_weight = 0.0
    plain = Predictor(config, graphdef, make_mesh(devices=jax.devices()[:2]), zeros)
    assert "flow_weight" not in plain.identity() and not plain._needed().double_softmax


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stride": (33, 16)}, r"evaluate.stride is \(33, 16\).*at most those of the window"),
        ({"stride": (0, 16)}, "evaluate.stride"),
        ({"scales": ()}, "one number or more"),
        ({"top_classes": 125}, "1 to 124 classes"),
    ],
)
def test_what_there_cannot_be_is_refused(fields, message):
    options = baseline.get_config("demo").evaluate
    options.stride = (32, 1)
    check_options(options, (32, 32), 124)
    options.update(fields)
    with pytest.raises(UserError, match=message):
        check_options(options, (32, 32), 124)


def test_the_recipes_have_the_released_codes_second_softmax_for_query_decoders_alone():
    recipes = (baseline, nce, multi_dataset, upernet, pne, deeplabv3, hrnet, ocrnet, upernet_swin, segformer)
    for recipe in (*recipes, upernet_focalnet, upernet_internimage, mask2former_eva, mask2former_eva02):
        config = recipe.get_config()
        assert config.evaluate.double_softmax == (config.model.decoder.name == "mask2former")
        assert (config.evaluate.scales, config.evaluate.flip) == ((1.0,), False)
