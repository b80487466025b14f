"""Decoder B of paper 001 in training: which frames are decoded, and at which they look back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from configs.parts import models
from tests.models import test_memory_a
from vspw_jax.console.errors import UserError
from vspw_jax.models.decoders.decoder import Training
from vspw_jax.models.decoders.memory_b import MemoryB
from vspw_jax.models.encoders.encoder import FeatureMap
from vspw_jax.models.temporal.temporal_memory_attention import drawn_before
from vspw_jax.parallel.mesh import make_mesh

MAPS = (FeatureMap(6, 4),)
CLIPS, FRAMES, PAST, CLASSES = 2, 4, 2, 5


def config(**changes):
    decoder = models.memory_b(test_memory_a.config(level=0, auxiliary_level=0, truth_steps=0))
    decoder.update(past=PAST, key_dim=4, value_dim=4, **changes)
    return decoder


def decoder_of(**changes):
    return MemoryB(MAPS, CLASSES, config(**changes), "none", dtype=jnp.float32, rngs=nnx.Rngs(params=0))


def test_frames_with_a_whole_past_are_decoded_and_learned_from():
    graphdef, state = nnx.split(decoder_of())
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(CLIPS * FRAMES, 4, 4, 6)).astype(np.float32)]
    labels = rng.integers(0, CLASSES, (CLIPS, FRAMES, 16, 16)).astype(np.int32)

    def run(state, maps, labels):
        decoder = nnx.merge(graphdef, state)
        outputs = decoder(maps, Training(FRAMES, None, labels.reshape(-1, 16, 16)))
        return outputs, test_memory_a.settled(decoder).feature_memory.rows_KC[...]

    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    outputs, rows = mapped(state, maps, labels)
    for name in ("logits_NHWC", "first_pass_logits_NHWC", "auxiliary_logits_NHWC", "features_NHWC"):
        assert len(outputs[name]) == CLIPS * (FRAMES - PAST)
    for frames, same in ((slice(0, PAST), True), (slice(PAST, None), False)):
        other = labels.copy()
        other[:, frames] = (other[:, frames] + 1) % CLASSES
        assert np.array_equal(mapped(state, maps, other)[1], rows) == same


@pytest.mark.parametrize("frames", [3, 5])
def test_where_a_frame_looks_back(frames):
    keys_N = jax.random.split(jax.random.key(0), CLIPS * frames)
    drawing, last = decoder_of(past_frames="drawn"), decoder_of(past_frames="last")
    expected = np.arange(PAST, frames)[:, None] + [-2, -1]
    for decoder, keys in ((last, keys_N), (last, None), (drawing, None)):
        found = decoder.past_of(Training(frames, keys), CLIPS * frames)
        np.testing.assert_array_equal(found, [expected] * CLIPS)
    training = Training(frames, keys_N)
    drawn = drawing.past_of(training, CLIPS * frames)
    own_keys = training.of_last(frames - PAST).keys(4).reshape(CLIPS, -1)
    np.testing.assert_array_equal(drawn, drawn_before(own_keys, frames, PAST))
    assert (np.asarray(drawn) == expected).all() == (frames == 3)


def test_an_unknown_way_to_look_back_is_named():
    with pytest.raises(UserError, match="model.decoder.past_frames is 'random': expected one of drawn, last"):
        MemoryB.check(config(past_frames="random"), MAPS)
