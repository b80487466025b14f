"""The seam between encoders and decoders: maps of any width and stride fit, a recipe that does not is refused."""

import functools
import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import nce
from configs.parts import models
from vspw_jax.console.errors import UserError
from vspw_jax.models import layers, segmenter
from vspw_jax.models.decoders.mask2former import Mask2Former
from vspw_jax.models.decoders.upernet import UperNet
from vspw_jax.models.encoders.encoder import Encoder, FeatureMap
from vspw_jax.parallel import placement
from vspw_jax.tasks import task

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
HEIGHT, WIDTH, CLASSES = 48, 80, 5
DILATED = {"widths": (8, 16, 24, 32), "strides": (4, 8, 8, 8)}
"""A ResNet's maps at output stride 8, a thirty-second as wide."""
THREE = {"widths": (8, 12, 16), "strides": (4, 8, 16)}
TWO = {"widths": (12, 20), "strides": (8, 16)}


class Convolutions(Encoder):
    """One convolution for each map, which reads the map before it."""

    FIELDS = ("widths", "strides")

    @classmethod
    def maps(cls, config):
        return tuple(FeatureMap(*pair) for pair in zip(config.widths, config.strides, strict=True))

    def __init__(self, config, image_size, remat, *, dtype, rngs):
        inputs, before = (3, *config.widths), (1, *config.strides)
        self.stages = nnx.List(
            [
                layers.conv(inputs[i], width, 3, config.strides[i] // before[i], dtype=dtype, rngs=rngs)
                for i, width in enumerate(config.widths)
            ]
        )

    def __call__(self, image_NHWC, train=False, keys_N=None):
        maps = [image_NHWC]
        for stage in self.stages:
            maps.append(jnp.tanh(stage(maps[-1])))
        return maps[1:]


@pytest.fixture(autouse=True)
def convolutions(monkeypatch):
    monkeypatch.setitem(segmenter.ENCODERS, "convolutions", Convolutions)


def mask2former():
    decoder = models.mask2former()
    decoder.update(dim=16, heads=2, points=2, encoder_ffn_dim=16, ffn_dim=16, encoder_layers=1, decoder_layers=2)
    decoder.update(num_queries=6, norm_groups=4)
    return decoder


def upernet(level=1):
    decoder = models.upernet()
    decoder.update(dim=16, auxiliary_dim=8, auxiliary_level=level)
    return decoder


def network(encoder, decoder):
    model = models.network(ConfigDict({"name": "convolutions", **encoder}), decoder, (HEIGHT, WIDTH))
    model.update(num_classes=CLASSES, remat="none")
    return model


def drawn(shapes):
    """Random arrays of these shapes; running variances are positive."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        draw = rng.normal(size=leaf.shape) / max(2.0, np.sqrt(np.prod(leaf.shape[:-1])))
        return (np.abs(draw) + 0.5 if path.endswith(("/scale", "/var")) else draw).astype(leaf.dtype)

    return placement.map_with_path(draw, shapes)


@pytest.mark.parametrize(
    ("encoder", "decoder", "sizes"),
    [
        (DILATED, mask2former, {"features_BTHWC": 4, "mask_logits_BTQHW": 4, "layer_mask_logits_LBTQHW": 4}),
        (THREE, mask2former, {"features_BTHWC": 4, "mask_logits_BTQHW": 4, "layer_mask_logits_LBTQHW": 4}),
        (DILATED, upernet, {"features_BTHWC": 4, "logits_BTHWC": 4, "auxiliary_logits_BTHWC": 8}),
        (THREE, upernet, {"features_BTHWC": 4, "logits_BTHWC": 4, "auxiliary_logits_BTHWC": 8}),
        (TWO, upernet, {"features_BTHWC": 8, "logits_BTHWC": 8, "auxiliary_logits_BTHWC": 16}),
    ],
)
def test_outputs_have_their_maps_size_and_every_parameter_a_gradient(encoder, decoder, sizes):
    """`sizes` has the stride of each output: the finest map's, or that of the auxiliary head's map."""
    build = lambda: nnx.split(segmenter.build(network(encoder, decoder()), jax.random.key(0)), nnx.Param, ...)
    graphdef, *shapes = jax.eval_shape(build)
    params, rest = (drawn(nnx.to_pure_dict(variables)) for variables in shapes)
    image = np.random.default_rng(0).normal(size=(1, 2, HEIGHT, WIDTH, 3)).astype(np.float32)

    def sum_of_squares(params):
        outputs = nnx.merge(graphdef, params, rest)(image)
        decoded = [x for name, x in sorted(outputs.items()) if name != "encoder"]
        return sum(jnp.square(x).sum() for x in decoded), outputs

    gradients, outputs = jax.jit(jax.grad(sum_of_squares, has_aux=True))(params)
    for name, stride in sizes.items():
        axis = name.rsplit("_", 1)[1].index("H")
        assert outputs[name].shape[axis : axis + 2] == (HEIGHT // stride, WIDTH // stride), name
    for x, width, stride in zip(outputs["encoder"], encoder["widths"], encoder["strides"], strict=True):
        assert x.shape == (1, 2, HEIGHT // stride, WIDTH // stride, width)
    largest = {}
    placement.map_with_path(lambda path, leaf: largest.__setitem__(path, np.abs(leaf).max()), gradients)
    # A softmax over keys does not see what is added to all of them.
    assert not [path for path, value in largest.items() if not value > 1e-6 and not path.endswith("key/bias")]


SIZES = ((13, 10), (7, 9), (7, 5), (3, 4))
WIDTHS = (5, 8, 6, 12)


def test_upernet_on_maps_of_unequal_sizes_is_pytorchs():
    """mmseg's UPerHead and FCNHead, written with PyTorch's functions in float64; no stride relates the sizes."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    maps = tuple(FeatureMap(width, 4) for width in WIDTHS)
    make = lambda rngs: UperNet(maps, CLASSES, upernet(level=2), "none", dtype=jnp.float32, rngs=rngs)
    graphdef, shapes = jax.eval_shape(lambda: nnx.split(make(nnx.Rngs(params=0))))
    variables = drawn(nnx.to_pure_dict(shapes))
    arrays, rng = {}, np.random.default_rng(1)
    placement.map_with_path(arrays.__setitem__, variables)
    features = [rng.normal(size=(2, *size, width)) for size, width in zip(SIZES, WIDTHS, strict=True)]
    run = jax.jit(lambda variables, maps: nnx.merge(graphdef, variables)(maps))
    outputs = run(variables, [x.astype(np.float32) for x in features])

    def tensor(array):
        return torch.from_numpy(np.ascontiguousarray(array, np.float64))

    def convolved(path, x):
        kernel = arrays[f"{path}/kernel"]
        kernel = kernel.reshape(*(1, 1, 1, 1)[kernel.ndim :], *kernel.shape).transpose(3, 2, 0, 1)
        bias = tensor(arrays[f"{path}/bias"]) if f"{path}/bias" in arrays else None
        return functional.conv2d(x, tensor(kernel), bias, padding=kernel.shape[-1] // 2)

    def conv_module(path, x):
        mean, var, scale, bias = (tensor(arrays[f"{path}/norm/{name}"]) for name in ("mean", "var", "scale", "bias"))
        return functional.batch_norm(convolved(f"{path}/conv", x), mean, var, scale, bias, eps=1e-5).relu()

    def resized(x, like):
        return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)

    inputs = [tensor(x.transpose(0, 3, 1, 2)) for x in features]
    pooled = [functional.adaptive_avg_pool2d(inputs[-1], scale) for scale in (1, 2, 3, 6)]
    pooled = [resized(conv_module(f"pooled_convs/{i}", x), inputs[-1]) for i, x in enumerate(pooled)]
    levels = [conv_module(f"lateral_convs/{i}", x) for i, x in enumerate(inputs[:-1])]
    levels.append(conv_module("bottleneck", torch.cat([inputs[-1], *pooled], dim=1)))
    for i in (2, 1, 0):
        levels[i] = levels[i] + resized(levels[i + 1], levels[i])
    levels[:-1] = [conv_module(f"fpn_convs/{i}", x) for i, x in enumerate(levels[:-1])]
    fused = conv_module("fpn_bottleneck", torch.cat([resized(x, levels[0]) for x in levels], dim=1))
    expected = {
        "features_NHWC": fused,
        "logits_NHWC": convolved("classifier/conv", fused),
        "auxiliary_logits_NHWC": convolved("auxiliary_classifier/conv", conv_module("auxiliary_conv", inputs[2])),
    }
    assert outputs.keys() == expected.keys()
    for name, theirs in expected.items():
        wanted = theirs.numpy().transpose(0, 2, 3, 1)
        assert np.abs(wanted).max() > 0.1
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max(), err_msg=name)


def without_widths(model):
    del model.encoder.widths


def with_a_depth(model):
    model.encoder.depth = 4


def with_a_projection(level):
    def change(model):
        model.projection = models.projection()
        model.projection.update(dim=8, level=level)

    return change


@pytest.mark.parametrize(
    ("encoder", "decoder", "change", "message"),
    [
        (THREE, upernet, without_widths, "model.encoder.name is 'convolutions', which needs widths"),
        (THREE, mask2former, with_a_depth, "model.encoder.name is 'convolutions', which does not read depth"),
        (THREE, lambda: upernet(3), None, "auxiliary_level is 3: .*0 to 2"),
        (TWO, lambda: upernet(2), None, "auxiliary_level is 2: .*0 to 1"),
        (THREE, lambda: upernet(-1), None, "auxiliary_level is -1: .*0 to 2"),
        (THREE, upernet, with_a_projection(3), "model.projection.level is 3: expected 0 to 2"),
        (TWO, mask2former, with_a_projection(-1), "model.projection.level is -1: expected 0 to 1"),
        ({"widths": (8,), "strides": (4,)}, mask2former, None, "Mask2Former needs two maps or more; .* gives 1"),
    ],
)
def test_what_does_not_fit_the_maps_is_refused(encoder, decoder, change, message):
    model = network(encoder, decoder())
    if change:
        change(model)
    with pytest.raises(UserError, match=message):
        segmenter.check(model)


@pytest.mark.parametrize(("encoder", "level"), [(THREE, 2), (TWO, 1)])
def test_a_loss_on_a_map_that_there_is_not_is_refused(encoder, level):
    config = nce.get_config("demo")
    config.model = network(encoder, mask2former())
    config.loss.segmentation.capacity = 4
    config.loss.nce.level = level
    task.check(config)
    config.loss.nce.level = level + 1
    with pytest.raises(UserError, match=f"loss.nce.level is {level + 1}: expected 0 to {level}"):
        task.check(config)


def demos():
    """`config.model` of all recipes' demos."""
    recipes = (runpy.run_path(str(path))["get_config"] for path in sorted(CONFIGS.glob("*.py")))
    return [get_config("demo").model for get_config in recipes]


SMALL = (64, 96)
DEMOS = demos()
ENCODERS = {model.encoder.name: model.encoder for model in DEMOS}
HEADS = {model.decoder.name: model.decoder for model in DEMOS}
DECODERS = {
    "upernet": HEADS["upernet"],
    "mask2former": HEADS["mask2former"],
    "deeplabv3": HEADS["deeplabv3"],
    "fcn on all maps": HEADS["fcn"],
    "fcn on one map": {**HEADS["fcn"], "inputs": models.fcn().inputs},
    "ocrnet on all maps": HEADS["ocrnet"],
    "ocrnet on one map": {**HEADS["ocrnet"], "inputs": models.ocrnet_vspw().inputs},
}


def test_all_encoders_and_the_demos_decoders_are_combined():
    assert ENCODERS.keys() == segmenter.ENCODERS.keys() - {"convolutions"}
    assert DECODERS["fcn on all maps"].inputs != DECODERS["fcn on one map"]["inputs"]
    assert DECODERS["ocrnet on all maps"].inputs != DECODERS["ocrnet on one map"]["inputs"]


@functools.cache
def maps_of(encoder):
    """Shapes of an encoder's maps, of two images."""
    config = ENCODERS[encoder]
    make = lambda: segmenter.ENCODERS[encoder](config, SMALL, "none", dtype=jnp.float32, rngs=nnx.Rngs(0))
    return jax.eval_shape(lambda image: make()(image), jax.ShapeDtypeStruct((2, *SMALL, 3), jnp.float32))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_works_under_every_decoder(encoder, decoder):
    """No pair is refused. Shapes alone are worked out."""
    model = models.network(ENCODERS[encoder].copy_and_resolve_references(), ConfigDict(DECODERS[decoder]), SMALL)
    segmenter.check(model)
    kind, described = segmenter.decoder_of(model), segmenter.maps_of(model)
    make = lambda: kind(described, CLASSES, model.decoder, "none", dtype=jnp.float32, rngs=nnx.Rngs(0))
    outputs = jax.eval_shape(lambda maps: make()(maps), maps_of(encoder))
    assert [x.shape for x in maps_of(encoder)] == [
        (2, SMALL[0] // x.stride, SMALL[1] // x.stride, x.width) for x in described
    ]
    assert outputs["features_NHWC"].shape[-1] == kind.features_width(model.decoder)
    reads_all = decoder in ("upernet", "mask2former") or decoder.endswith("all maps")
    stride = described[0 if reads_all else -1].stride
    size = (SMALL[0] // stride, SMALL[1] // stride)
    if kind is Mask2Former:
        assert outputs["mask_logits_NQHW"].shape == (2, model.decoder.num_queries, *size)
    else:
        assert outputs["logits_NHWC"].shape == (2, *size, CLASSES)
