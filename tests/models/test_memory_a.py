"""Decoder A of paper 001: by which mask a frame reads the memory, in training and in a video; what it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from configs.parts import losses, models
from vspw_jax.console.errors import UserError
from vspw_jax.models import memory
from vspw_jax.models.decoders import reads_memory
from vspw_jax.models.decoders.decoder import Training
from vspw_jax.models.decoders.memory_a import MemoryA
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import supervised

CLASSES, VOID = 5, 255
MAPS = (FeatureMap(6, 4), FeatureMap(7, 8))
CLIPS, FRAMES, SIZE = 3, 2, 32


def config(**changes):
    decoder = models.memory_a()
    decoder.update(dim=8, auxiliary_dim=4, auxiliary_level=1, pool_scales=(1, 2), dropout=0.0)
    decoder.update(level=1, memory_dim=6, truth_steps=2, momentum=0.5)
    decoder.update(changes)
    return decoder


def network(maps=MAPS, **changes):
    """Random weights, statistics and memory; class 4 was never seen."""
    make = lambda: MemoryA(maps, CLASSES, config(**changes), "none", dtype=jnp.float32, rngs=nnx.Rngs(params=0))
    graphdef, state = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path.endswith("valid_K"):
            return jnp.arange(CLASSES) < 4
        scale = 1.0 if path.endswith("rows_KC") else np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.3
        drawn = scale * rng.normal(size=leaf.shape) + path.endswith(("scale", "var"))
        return jnp.asarray(np.abs(drawn) if path.endswith("var") else drawn, leaf.dtype)

    return graphdef, placement.map_with_path(draw, nnx.to_pure_dict(state))


def settled(decoder):
    """The decoder, once it has learned what its pass has seen."""
    seen = nnx.to_pure_dict(nnx.state(decoder, memory.Seen))
    memory.settle(decoder, jax.tree.map(lambda x: x[None], seen))
    return decoder


def drawn_maps(seed=0, count=CLIPS * FRAMES):
    rng = np.random.default_rng(seed)
    sizes = [(SIZE // x.stride, SIZE // x.stride, x.width) for x in MAPS]
    return [jnp.asarray(rng.normal(size=(count, *size)), jnp.float32) for size in sizes]


def drawn_labels(seed=0):
    shape = (CLIPS * FRAMES, SIZE, SIZE)
    return jnp.asarray(np.random.default_rng(seed).choice([0, 1, 2, 3, VOID], shape), jnp.int32)


@pytest.fixture(scope="module", params=["hard", "soft"])
def mask(request):
    return request.param


@pytest.fixture(scope="module")
def trained(mask):
    """trained(maps, labels, step): (outputs, memory's variables after the pass); compiled once."""
    graphdef, state = network(mask=mask)

    def run(state, maps, labels, step):
        decoder = nnx.merge(graphdef, state)
        outputs = decoder(maps, Training(FRAMES, None, labels, rate=0.5, step=step))
        return outputs, nnx.to_pure_dict(nnx.state(settled(decoder).feature_memory))

    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    return lambda maps, labels, step: jax.tree.map(np.asarray, mapped(state, maps, labels, step))


def by_clip(x):
    return x.reshape(CLIPS, FRAMES, *x.shape[1:])


def test_in_the_first_steps_a_frame_reads_by_the_truth_of_the_one_before(trained):
    """Labels of the last frame of a clip change no output; those of its first frame change both frames'."""
    maps, labels = drawn_maps(), drawn_labels()
    other_last, other_first = (
        by_clip(labels).at[:, frame].set(by_clip(drawn_labels(1))[:, frame]).reshape(labels.shape) for frame in (1, 0)
    )
    logits = lambda labels, step: by_clip(trained(maps, labels, step)[0]["logits_NHWC"])
    for step, differs in ((1, True), (2, False)):
        usual = logits(labels, step)
        np.testing.assert_array_equal(logits(other_last, step), usual)
        changed = np.abs(logits(other_first, step) - usual).max(axis=(2, 3, 4))
        assert ((changed > 1e-4) == differs).all()
    void = jnp.full_like(labels, VOID)  # As of a clip whose labels are withheld: no truth, so the mask stays.
    np.testing.assert_array_equal(logits(void, 1), logits(void, 2))


def test_a_pass_in_training_learns_the_memory_and_gives_every_output(trained):
    outputs, learned = trained(drawn_maps(), drawn_labels(), 2)
    assert outputs["logits_NHWC"].shape == (6, 8, 8, CLASSES) and outputs["features_NHWC"].shape == (6, 8, 8, 6)
    assert outputs["first_pass_logits_NHWC"].shape == (6, 4, 4, CLASSES)
    assert outputs["memory_logits_KC"].shape == (CLASSES, CLASSES)
    np.testing.assert_array_equal(outputs["memory_valid_K"], [True] * 4 + [False])
    assert np.abs(learned["rows_KC"] - network()[1]["feature_memory"]["rows_KC"])[:4].max() > 0.05
    np.testing.assert_array_equal(learned["valid_K"], [True] * 4 + [False])


@pytest.fixture(scope="module")
def video(mask):
    """(decoder, [(outputs, memory before)]) of four frames of two views."""
    decoder = nnx.merge(*network(mask=mask))
    look, frames = jax.jit(decoder.look), []
    remembered = decoder.memory(drawn_maps(count=2))
    for seed in range(4):
        outputs, remembered = look(drawn_maps(seed, count=2), remembered)
        frames.append(outputs)
    return decoder, frames


def test_a_video_reads_by_the_mask_before_and_at_first_by_the_first_pass(video, mask):
    decoder, frames = video
    features_of = jax.jit(lambda maps: (decoder.represent(maps, False), decoder.fuse(maps, False)))
    resize = lambda x, size: jax.image.resize(x, (2, size, size, x.shape[-1]), "bilinear", antialias=False)

    @jax.jit
    def logits(features, wide, recalled):
        context = resize(decoder.attention(features, recalled, False), 8)
        return decoder.head(decoder.join_conv(jnp.concatenate([wide, context], axis=-1), False), False)

    for number, outputs in enumerate(frames):
        features, wide = features_of(drawn_maps(number, count=2))
        source = frames[number - 1]["logits_NHWC"] if number else outputs["first_pass_logits_NHWC"]
        small = resize(source, 4)
        share = np.exp(small) / np.exp(small).sum(axis=-1, keepdims=True)
        weights = np.eye(CLASSES)[small.argmax(axis=-1)] if mask == "hard" else share
        rows, valid = (np.asarray(x[...]) for x in (decoder.feature_memory.rows_KC, decoder.feature_memory.valid_K))
        recalled = (weights * valid) @ rows + (1 - weights[..., valid].sum(axis=-1, keepdims=True)) * features
        expected = logits(features, wide, jnp.asarray(recalled, jnp.float32))
        np.testing.assert_allclose(outputs["logits_NHWC"], expected, rtol=1e-4, atol=1e-4)


def test_frames_by_themselves_are_first_frames(video):
    decoder, frames = video
    alone = jax.jit(decoder)(drawn_maps(0, count=2))["logits_NHWC"]
    np.testing.assert_allclose(alone, frames[0]["logits_NHWC"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", ["bottleneck", "pyramid", "backbone"])
def test_what_the_memory_holds(space):
    """The last map or all of them, with the size of the map at `level`, behind a convolution or as it is."""
    maps = (FeatureMap(7, 4), FeatureMap(6, 8))
    decoder = nnx.merge(*network(maps, memory_space=space, level=0))
    fine, last = (x[:1] for x in reversed(drawn_maps()))
    fine = jnp.asarray(np.asarray(fine).repeat(2, axis=1).repeat(2, axis=2))
    last = jnp.asarray(np.asarray(last)[:, ::2, ::2])
    read = jax.image.resize(last, (1, 8, 8, 6), "bilinear", antialias=False)
    if space == "pyramid":
        read = jnp.concatenate([fine, read], axis=-1)
    expected = read if space == "backbone" else decoder.represent_conv(read, False)
    np.testing.assert_allclose(decoder.represent([fine, last], False), expected, atol=1e-6)
    assert expected.shape == (1, 8, 8, 6)


def test_void_cells_of_a_mask_read_by_the_first_pass():
    mask = jnp.asarray([[[1, VOID], [VOID, 0]]], jnp.uint8)
    weights = reads_memory.weights_of(mask, jnp.asarray([[[2, 2], [1, 1]]], jnp.uint8), 3)
    np.testing.assert_array_equal(weights.argmax(axis=-1), [[[1, 2], [1, 0]]])
    label = jnp.asarray(np.arange(64).reshape(1, 8, 8), jnp.uint8)
    np.testing.assert_array_equal(reads_memory.mask_of_labels(label, 2, 2), [[[18, 22], [50, 54]]])


def test_the_memorys_rows_are_normalised_among_themselves():
    """As a batch of the valid rows alone; the others have no part in it, and no running statistic changes."""
    head = reads_memory.Head(6, CLASSES, 0.0, dtype=jnp.float32, rngs=nnx.Rngs(params=jax.random.key(0)))
    rng = np.random.default_rng(0)
    rows, valid = rng.normal(size=(CLASSES, 6)).astype(np.float32), np.array([True, False, True, True, False])
    graphdef, state = nnx.split(head)
    of_batch = lambda state, rows: nnx.merge(graphdef, state)(rows[:, None, None], train=True)[:, 0, 0]
    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.jit(jax.shard_map(of_batch, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    expected = mapped(state, rows[valid])
    for others in (0.0, 7.0):
        found = head.of_rows(np.where(valid[:, None], rows, others), valid)
        np.testing.assert_allclose(found[valid], expected, rtol=1e-4, atol=1e-6)
    assert head.conv.norm.count[...] == 0 and not head.conv.norm.mean[...].any()


def test_the_memorys_rows_are_classified_from_a_step_on():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(CLASSES, CLASSES)).astype(np.float32)
    valid = np.array([True, False, True, True, False])
    outputs = {"memory_logits_KC": jnp.asarray(logits), "memory_valid_K": jnp.asarray(valid)}
    shape = (1, 1, 4, 4)
    for name in ("logits", "first_pass_logits", "auxiliary_logits"):
        outputs[f"{name}_BTHWC"] = jnp.zeros((*shape, CLASSES))
    loss = losses.memory_per_pixel()
    loss.memory_start_step = 7
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(np.diagonal(probabilities)[valid]).mean()
    mesh = make_mesh(devices=jax.devices()[:2])

    def terms(step):
        return jax.lax.psum(supervised.memory_terms(outputs, jnp.zeros(shape, int), None, step, loss), ("data", "fsdp"))

    run = jax.jit(jax.shard_map(terms, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    assert float(run(6)["memory"]) == 0
    found = run(7)
    assert float(found["memory"]) == pytest.approx(expected, rel=1e-5)
    for name in ("pixel", "first_pass", "auxiliary"):
        assert float(found[name]) == pytest.approx(np.log(CLASSES), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 2}, "model.decoder.level is 2: expected one of the encoder's maps, 0 to 1"),
        ({"memory_dim": 7}, "memory_dim is 7: expected an even number"),
        ({"memory_space": "backbone"}, "memory_dim is 6: expected 7, the width of the encoder's last map.*bottleneck"),
        ({"memory_space": "backbones"}, "model.decoder.memory_space is 'backbones': expected one of .*'backbone'"),
        ({"mask": "sotf"}, "model.decoder.mask is 'sotf': expected one of .*Did you mean 'soft'"),
        ({"first_sight": "median"}, "model.decoder.first_sight is 'median': expected one of .*mean"),
    ],
)
def test_what_makes_no_network_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        MemoryA.check(config(**changes), MAPS)
