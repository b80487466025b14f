"""ViT-Adapter around BEiT, stage by stage, against what the public PyTorch code gives.

The numbers in `golden/vit_adapter_*.npz` come from czczup/ViT-Adapter at commit fd64a51: `BEiTAdapter` of
segmentation/mmseg_custom/models/backbones, with `MSDeformAttn` of detection/ops over its own grid_sample form
`ms_deform_attn_core_pytorch`; Python 3.11, torch 2.13.0+cpu, NumPy 2.4.6, float32. What those files import was
supplied: registry decorators that do nothing, DropPath of rate 0, and BatchNorm2d for SyncBatchNorm in training (the
same on one process; SyncBatchNorm trains on GPUs only). The model's arguments: embed_dim 32, depth 8, num_heads 4,
mlp_ratio 4, qkv_bias, no absolute and per-block relative positions, conv_inplane 8, n_points 4, deform_num_heads 4,
cffn_ratio 0.25, deform_ratio 0.5, interaction_indexes [[0,1],[2,3],[4,5],[6,7]], img_size the file's, square or not.
Weights and inputs are drawn as `drawn` and `tokens` do here, so that the files hold outputs alone, thinned out as
`thinned` does, channels last: each stage on drawn inputs, the four maps in evaluation and in training, and of the
training maps' sum weighted by drawn numbers the gradient of every parameter. Run with `-s` to see the errors.
"""

import functools
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from vspw_jax.models.encoders import relative_attention, vit_adapter_rows
from vspw_jax.models.encoders.vit_adapter import ViTAdapter
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import train_state

pytestmark = pytest.mark.unrolled
GOLDEN = pathlib.Path(__file__).parent / "golden"
SIZES = [(64, 64), (96, 96), (64, 96), (128, 32)]
DIM, DEPTH = 32, 8
CONFIG = ConfigDict(
    dict(dim=DIM, depth=DEPTH, heads=4, mlp_ratio=4.0, layer_scale=1e-6, drop_path=0.0, adapter_channels=8)
    | dict(adapter_heads=4, adapter_points=4, adapter_value_ratio=0.5, adapter_ffn_ratio=0.25, extra_extractors=2)
)
STAGE_TOLERANCE, NETWORK_TOLERANCE = 1e-5, 1e-4


def drawn(key, shape):
    """The tensor of a checkpoint's key: a function of the key alone."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if len(shape) > 1:
        return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if key.endswith((".weight", "running_var", "gamma", "gamma_1", "gamma_2")):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.normal(size=shape) * (2.0 if "sampling_offsets" in key else 0.1)).astype(np.float32)


def tokens(name, count):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(size=(2, count, DIM)).astype(np.float32)


def thinned(x, most=150):
    flat = np.asarray(x).ravel()
    return flat[:: max(1, -(-flat.size // most)) | 1]


def at(tree, *index):
    """One of several stacked modules' variables."""
    return jax.tree.map(lambda x: x[index], tree)


@functools.cache
def rows():
    return tuple(vit_adapter_rows.mmseg("", "backbone.", CONFIG))


@functools.cache
def encoder(size):
    """The network of one input size as (graphdef, variables), every weight drawn by its key in the public code."""
    graphdef, state = nnx.split(
        nnx.eval_shape(lambda: ViTAdapter(CONFIG, size, "none", dtype=jnp.float32, rngs=nnx.Rngs(0)))
    )
    shapes = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    arrays = {"/" + "/".join(map(str, path)): np.zeros(leaf.shape, leaf.dtype) for path, leaf in shapes.items()}
    for row in rows():
        if not row.theirs.endswith("num_batches_tracked"):
            view = row.view(arrays[row.ours])
            view[...] = drawn(row.theirs, view.shape)
    return graphdef, traverse_util.unflatten_dict(dict(zip(shapes, map(jnp.asarray, arrays.values()), strict=True)))


def in_public_layout(variables):
    """Nested variables as {public key: array}."""
    arrays = {"/" + "/".join(map(str, path)): x for path, x in traverse_util.flatten_dict(variables).items()}
    return {row.theirs: row.view(np.asarray(arrays[row.ours])) for row in rows() if row.ours in arrays}


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def size(request):
    return request.param


@functools.cache
def golden(size):
    return np.load(GOLDEN / f"vit_adapter_{size[0]}x{size[1]}.npz")


def image(size):
    return np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)


def relative_error(found, wanted):
    return np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max()


def report(name, size, error, tolerance):
    print(f"{name:<24} {size[0]}x{size[1]}  {error:.1e}")
    assert error < tolerance, f"{name} at {size}: relative error {error:.1e}, tolerance {tolerance:.0e}"


def test_prior_and_patch_embedding(size):
    model = nnx.merge(*encoder(size))
    maps = jax.jit(lambda image: model.prior(image, False))(image(size))
    for level, x in enumerate(maps):
        report(f"prior/{level}", size, relative_error(thinned(x), golden(size)[f"prior/{level}"]), STAGE_TOLERANCE)
    patches = model.patch_embed(image(size))
    report("patch_embed", size, relative_error(thinned(patches), golden(size)["patch_embed"]), STAGE_TOLERANCE)


def test_relative_position_bias(size):
    table = at(encoder(size)[1]["interactions"]["blocks"]["attn"], 0, 0)["relative_position_bias_table"]
    bias = relative_attention.relative_position_bias(table, (size[0] // 16, size[1] // 16))
    np.testing.assert_array_equal(thinned(bias), golden(size)["bias"])


def test_blocks(size):
    model = nnx.merge(*encoder(size))
    graphdef, variables = nnx.split(model.interactions.blocks)
    run = jax.jit(lambda variables, x: nnx.merge(graphdef, variables)(x, 0.0))
    x = tokens("tokens", size[0] * size[1] // 256 + 1)
    for number in range(DEPTH):
        output = run(at(variables, *divmod(number, DEPTH // 4)), x)
        wanted = golden(size)[f"blocks/{number}"]
        report(f"blocks/{number}", size, relative_error(thinned(output), wanted), STAGE_TOLERANCE)


def test_injectors_and_extractors(size):
    model = nnx.merge(*encoder(size))
    window = (size[0] // 16, size[1] // 16)
    patches = tokens("patches", window[0] * window[1])
    pyramid = tokens("pyramid", 21 * window[0] * window[1] // 4)
    injector, extractor = nnx.graphdef(model.interactions.injector), nnx.graphdef(model.interactions.extractor)
    inject = jax.jit(lambda variables: nnx.merge(injector, variables)(patches, pyramid, window))
    extract = jax.jit(lambda variables: nnx.merge(extractor, variables)(pyramid, patches, window))
    outputs = {}
    for number in range(4):
        outputs[f"injectors/{number}"] = inject(at(nnx.state(model.interactions.injector), number))
        outputs[f"extractors/{number}"] = extract(at(nnx.state(model.interactions.extractor), number))
    for number, extra in enumerate(model.extra_extractors):
        outputs[f"extra_extractors/{number}"] = extract(nnx.state(extra))
    for name, output in outputs.items():
        report(name, size, relative_error(thinned(output), golden(size)[name]), STAGE_TOLERANCE)


def test_whole_network(size):
    graphdef, variables = encoder(size)
    maps = jax.jit(lambda variables, x: nnx.merge(graphdef, variables)(x))(variables, image(size))
    for level, x in enumerate(maps):
        report(f"eval/{level}", size, relative_error(thinned(x), golden(size)[f"eval/{level}"]), NETWORK_TOLERANCE)


@functools.cache
def trained(size):
    """Maps, running statistics and parameters' gradients of one training pass."""
    model = nnx.merge(*encoder(size))
    graphdef, params, statistics = train_state.split_model(model)
    rng = np.random.default_rng(2)
    shapes = [(2, size[0] // stride, size[1] // stride, DIM) for stride in (4, 8, 16, 32)]
    directions = [rng.normal(size=shape).astype(np.float32) for shape in shapes]

    def loss(params, images):
        model = nnx.merge(graphdef, params, statistics)
        maps = model(images, train=True)
        total = sum((x * direction).sum() for x, direction in zip(maps, directions, strict=True))
        return total, (maps, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))

    # The mapped axes over which batch statistics are averaged have one device here.
    mesh = make_mesh(devices=jax.devices()[:1])
    step = jax.shard_map(jax.grad(loss, has_aux=True), mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    run = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
    gradients, (maps, statistics) = run(params, image(size))
    return maps, statistics, gradients


@pytest.mark.parametrize("size", [(64, 64), (64, 96)], ids=["64x64", "64x96"])
def test_training_pass(size):
    maps, statistics, gradients = trained(size)
    wanted = golden(size)
    for level, x in enumerate(maps):
        report(f"train/{level}", size, relative_error(thinned(x), wanted[f"train/{level}"]), NETWORK_TOLERANCE)

    by_key = in_public_layout(statistics)
    keys = [key for key in sorted(by_key) if not key.endswith("num_batches_tracked")]
    found = np.concatenate([thinned(by_key[key], 12) for key in keys])
    report("running statistics", size, relative_error(found, wanted["statistics"]), NETWORK_TOLERANCE)

    by_key = in_public_layout(gradients)
    keys = sorted(by_key)
    assert zlib.crc32("\n".join(keys).encode()) == wanted["gradient_names"]
    samples = [thinned(by_key[key], 12) for key in keys]
    ends = np.cumsum([sample.size for sample in samples])[:-1]
    errors = {
        key: np.abs(sample - reference).max() / scale
        for key, sample, reference, scale in zip(
            keys, samples, np.split(wanted["gradients"], ends), wanted["gradient_scales"], strict=True
        )
    }
    # A constant that batch norm takes away again has no gradient: rounding alone is left to compare.
    for key in ("backbone.spm.fc1.bias", "backbone.up.bias"):
        assert np.abs(by_key[key]).max() < 1e-6 * wanted["gradient_scales"].max()
        del errors[key]
    report(f"gradient, worst of {len(errors)}", size, max(errors.values()), NETWORK_TOLERANCE)
