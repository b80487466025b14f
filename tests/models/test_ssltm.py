"""SSLTM: OCRNet without its parts, the same in training as frame by frame, and what makes no network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from configs import ssltm
from configs.parts import models
from vspw_jax.console.errors import UserError
from vspw_jax.evaluation import evaluate
from vspw_jax.models import layers, segmenter
from vspw_jax.models.decoders.decoder import Training
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import task
from vspw_jax.training import checks

CLASSES, SHORT_TERM = 5, 3
MAPS = (FeatureMap(6, 8), FeatureMap(8, 16))


def decoder(kind="ssltm", **changes):
    """A small decoder of two maps, its weights and statistics drawn; OCRNet's are drawn as those that SSLTM has."""
    config = models.ssltm()
    config.update(dim=8, key_dim=4, auxiliary_dim=4, auxiliary_level=0, heads=2)
    config.update({"short_term": SHORT_TERM, "window": (3, 2, 2)} | changes)
    make = lambda: segmenter.DECODERS[kind](
        MAPS, CLASSES, config, "none", dtype=jnp.float32, rngs=nnx.Rngs(params=jax.random.key(0))
    )
    graphdef, state = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.normal(0, 0.5, leaf.shape)
        return jnp.asarray(np.abs(values) + 0.5 if "var" in jax.tree_util.keystr(path) else values, leaf.dtype)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(state)))


def video(frames):
    """Maps of as many frames."""
    rng = np.random.default_rng(1)
    return [
        jnp.asarray(rng.normal(size=(frames, side, side + 1, x.width)), jnp.float32)
        for x, side in zip(MAPS, (5, 3), strict=True)
    ]


def streamed(module, maps):
    """Logits of every frame, one after the other."""
    frames = [[x[t : t + 1] for x in maps] for t in range(len(maps[0]))]
    memory, found = module.memory(frames[0]), []
    for frame in frames:
        outputs, memory = module.look(frame, memory)
        found.append(outputs["logits_NHWC"][0])
    return np.stack(found)


def test_without_its_parts_it_is_ocrnet():
    module = decoder(context="query", blocks=0, short_term=1, clusters=0)
    baseline, maps = decoder("ocrnet"), video(2)
    nnx.update(baseline, nnx.state(module))
    for name, expected in baseline(maps).items():
        np.testing.assert_array_equal(module(maps)[name], expected)
    np.testing.assert_allclose(streamed(module, maps), module(maps)["logits_NHWC"], atol=1e-5)


def test_a_clip_in_training_is_a_video_frame_by_frame(monkeypatch):
    """The reference first, then a frame that is not read, then the short term; but for the statistics of batch norms.

    The video before the query is the clip, so its first frame is the reference.
    """
    monkeypatch.setattr(
        layers.BatchNorm, "__call__", lambda self, x, use_running_average: nnx.BatchNorm.__call__(self, x, True)
    )
    module, frames = decoder(context="both"), SHORT_TERM + 2
    one, other = video(frames), [x[::-1] for x in video(frames)]
    clips = [jnp.concatenate(pair) for pair in zip(one, other, strict=True)]
    label = jnp.asarray(np.random.default_rng(2).integers(0, 3, (2 * frames, 8, 8)))
    outputs = jax.jit(lambda clips, label: module(clips, Training(frames, label_NHW=label)))(clips, label)
    for number, maps in enumerate((one, other)):
        np.testing.assert_allclose(outputs["logits_NHWC"][number], streamed(module, maps)[-1], atol=1e-5)
        guess = module.guess([x[-1:] for x in maps], None)[0]
        np.testing.assert_allclose(outputs["auxiliary_logits_NHWC"][number], guess, atol=1e-5)
    assert outputs["class_vectors_NKC"].shape == (2, CLASSES, 8)
    assert outputs["class_present_NK"].all(axis=0).tolist() == [True] * 3 + [False] * 2


def test_each_part_makes_a_difference():
    """On the same weights."""
    whole, maps = decoder(context="both"), video(4)
    weights, found = nnx.to_pure_dict(nnx.state(whole)), [streamed(whole, maps)]
    for changes in (
        dict(context="query"),
        dict(context="reference"),
        dict(context="both", clusters=0),
        dict(context="both", blocks=0, short_term=1),
        dict(context="both", reference="distance", distance=1),
    ):
        module = decoder(**changes)
        parts = nnx.to_pure_dict(nnx.state(module))
        nnx.update(module, {name: weights[name] for name in parts})
        found.append(streamed(module, maps))
    for number, one in enumerate(found):
        assert all(np.abs(one[2:] - other[2:]).max() > 1e-4 for other in found[:number])


def test_clusters_that_move_as_an_average_see_the_classes_of_the_query():
    """And no gradient or loss has them."""
    graphdef, state = nnx.split(decoder(cluster_update="ema"))
    label = jnp.asarray([[[4, 4]], [[4, 4]], [[4, 4]], [[0, 2]]])  # The query is the last.

    def lesson(state):
        module = nnx.merge(graphdef, state)
        outputs = module(video(4), Training(4, label_NHW=label))
        assert outputs.keys() == {"features_NHWC", "logits_NHWC", "auxiliary_logits_NHWC"}
        return module.clusters.seen.get_value()

    mapped = jax.shard_map(
        lesson, mesh=make_mesh(devices=jax.devices()[:1]), in_specs=P(), out_specs=P(), check_vma=False
    )
    np.testing.assert_array_equal(jax.jit(mapped)(state).counts_KG.sum(axis=1), [1, 0, 1, 0, 0])
    assert "clusters" not in nnx.to_pure_dict(nnx.state(nnx.merge(graphdef, state), nnx.Param))


WRONG = {
    "model.decoder.short_term is 4, but model.decoder.blocks is 0": {"model.decoder.blocks": 0},
    r"short_term is 5, but windows .* have 4 frames: .*window='\(5, 7, 7\)'": {
        "model.decoder.short_term": 5,
        "data.frames": 6,
    },
    "model.decoder.shift is True, but model.decoder.blocks is 1": {"model.decoder.shift": True},
    "model.decoder.heads is 5": {"model.decoder.heads": 5},
    "pixels have nothing to attend to": {"model.decoder.context": "none", "model.decoder.clusters": 0},
    "model.decoder.context is 'far'": {"model.decoder.context": "far"},
    "model.decoder.reference is 'last'": {"model.decoder.reference": "last"},
    "model.decoder.cluster_update is 'mean'": {"model.decoder.cluster_update": "mean"},
    "data.frames is 4: expected 5 or more": {"data.frames": 4},
    "weights.clusters is 1.0, but model.decoder.clusters is 0": {"model.decoder.clusters": 0},
    "weights.clusters is 1.0, but model.decoder.cluster_update is 'ema'": {"model.decoder.cluster_update": "ema"},
    r"data.reference_distance is \(\): expected how far": {"data.reference_distance": ()},
    r"data.reference_distance is \(10, 60\): expected \(\)": {"model.decoder.context": "query"},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_makes_no_network_is_named(message):
    config = ssltm.get_config()
    config.update_from_flattened_dict(WRONG[message])
    with pytest.raises(UserError, match=message) as raised:
        segmenter.check(config.model)
        task.check(config)
    assert "--config." in str(raised.value) or "xpected one of" in str(raised.value)


def test_a_reference_farther_back_than_every_video_reaches_is_refused():
    config = ssltm.get_config().model.decoder
    check = segmenter.DECODERS["ssltm"].check_longest
    check(config, 1, "here")  # The reference is a video's first frame, be it the only one.
    config.update(reference="distance", distance=10)
    check(config, 11, "here")
    with pytest.raises(UserError, match=r"distance is 10, but no video of here .*has 10 frames.*reference=first"):
        check(config, 10, "here")
    config.context = "query"
    check(config, 10, "here")


def test_it_is_refused_before_training_and_in_evaluation(generated_records, tmp_path):
    config = ssltm.get_config("demo")
    config.data.records = str(generated_records)
    checks.check(config)
    config.model.decoder.update(reference="distance", distance=10)
    with pytest.raises(
        UserError, match=r"no video of .* \(val\) has a frame so far before another: the longest has 10"
    ):
        checks.check(config)
    with pytest.raises(UserError, match=r"no video of .* \(val\) has"):
        evaluate.evaluate(config, None, tmp_path)
    config.run.afterwards = ()
    checks.check(config)
