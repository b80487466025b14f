"""How the terms of the loss are chosen, weighted and warmed up, on a made-up network's outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import deeplabv3, memory_b, nce, pne, upernet
from vspw_jax.console.errors import UserError
from vspw_jax.losses import cross_frame_nce, segmentation
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import supervised

CLASSES, QUERIES = 3, 4
KEYS = jax.random.split(jax.random.key(0), 1)


@pytest.mark.parametrize("recipe", [deeplabv3, upernet])
def test_one_image_is_too_few_where_its_mean_is_normalised(recipe):
    config = recipe.get_config("demo")
    config.train.update(batch=2, accumulate=1)
    supervised.Supervised.check(config)
    config.train.accumulate = 2
    with pytest.raises(UserError, match=r"A pass in training has 1 image .*--config.train.batch=4\."):
        supervised.Supervised.check(config)


def test_views_that_divide_a_clip_are_refused():
    config = nce.get_config("demo")
    config.data.views = "two_frames"
    with pytest.raises(UserError, match="data.views is 'two_frames'.*learns from whole clips.*--config.data.views=one"):
        supervised.Supervised.check(config)


def test_clips_whose_labels_nothing_reads_are_refused():
    config = memory_b.get_config("demo")
    config.data.labelled_frames = "first"
    with pytest.raises(
        UserError, match="memory_b learns from the last frame .*labelled frame is its first.*chosen=last"
    ):
        supervised.Supervised.check(config)
    config.data.chosen = "last"
    supervised.Supervised.check(config)
    config.data.unlabelled_share = 0.5
    with pytest.raises(UserError, match="unlabelled_share is 0.5, but task.name is 'supervised', in which nothing"):
        supervised.Supervised.check(config)


def made_up(shapes):
    rng = np.random.default_rng(0)
    outputs = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    outputs["encoder"] = [jnp.asarray(rng.normal(size=(1, 2, n, n, 5)), jnp.float32) for n in (8, 4, 2, 1)]
    return outputs


def batch():
    label = np.random.default_rng(1).choice([0, 1, 2, 255], (1, 2, 8, 8))
    return {"label_BTHW": jnp.asarray(label, jnp.int32), "is_clip_B": jnp.ones(1, bool)}


def on_one_device(function, *arguments):
    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return jax.tree.map(float, jax.jit(mapped)(*arguments))


def losses(outputs, config, decoder):
    run = lambda outputs, batch: supervised.clip_losses(outputs, batch, KEYS, 0, decoder, config)
    return on_one_device(run, outputs, batch())


def test_equation_4_to_the_letter(monkeypatch):
    """Cross-entropy 1, dice 5, nothing else, in the loss and in the matching."""
    config = nce.get_config().loss
    config.segmentation.weights.mask = config.segmentation.matching.mask = 0.0
    config.nce.weight = 0.0
    terms = {"cls": 2.0, "mask": 3.0, "dice": 4.0}
    monkeypatch.setitem(supervised.SEGMENTATION_TERMS, "mask_classification", lambda *_: terms)
    assert supervised.clip_losses({}, batch(), KEYS, 0, "mask_classification", config) == {
        "cls": 2.0,
        "mask": 0.0,
        "dice": 20.0,
    }
    rng = np.random.default_rng(0)
    classes, masks = rng.normal(size=(QUERIES, CLASSES + 1)), rng.normal(size=(QUERIES, 6))
    targets = rng.integers(0, 2, (2, 6)).astype(float)
    cost = segmentation.matching_cost(
        classes, masks, np.array([0, 2]), targets, np.ones(6), config.segmentation.matching
    )
    p, probability = 1 / (1 + np.exp(-masks)), np.exp(classes) / np.exp(classes).sum(axis=1, keepdims=True)
    for q, m in np.ndindex(QUERIES, 2):
        dice = 1 - (2 * p[q] @ targets[m] + 1) / (p[q].sum() + targets[m].sum() + 1)
        assert float(cost[q, m]) == pytest.approx(-2 * probability[q, [0, 2][m]] + 5 * dice, rel=1e-5)


def test_contrast_reads_the_level_asked_for_or_the_projection():
    config = pne.get_config("demo").loss
    config.pne.weight = 0.0
    config.nce = nce.get_config("demo").loss.nce
    config.nce.update(level=1, scope="clip")
    logits = (1, 2, 8, 8, CLASSES)
    outputs = made_up({"logits_BTHWC": logits, "auxiliary_logits_BTHWC": logits})
    loss = jax.jit(lambda features, labels: cross_frame_nce.batch_loss(features, labels, KEYS, config.nce))
    of = lambda features: float(loss(features, batch()["label_BTHW"]))
    found = losses(outputs, config, "per_pixel")
    assert found.keys() == {"pixel", "auxiliary", "nce"}
    assert found["nce"] == pytest.approx(of(outputs["encoder"][1]), rel=1e-5)
    projected = outputs | {"projection_BTHWC": outputs["encoder"][0][..., :3]}
    assert losses(projected, config, "per_pixel")["nce"] == pytest.approx(of(projected["projection_BTHWC"]), rel=1e-5)


def test_unrelated_frames_are_not_contrasted():
    """In joint training single images fill a clip: `is_clip_B` is false for it."""
    config = pne.get_config("demo").loss
    config.pne.weight = 0.0
    config.nce = nce.get_config("demo").loss.nce
    config.nce.scope = "clip"
    logits = (1, 2, 8, 8, CLASSES)
    outputs = made_up({"logits_BTHWC": logits, "auxiliary_logits_BTHWC": logits})
    run = lambda outputs, batch: supervised.clip_losses(outputs, batch, KEYS, 0, "per_pixel", config)
    related = on_one_device(run, outputs, batch())
    unrelated = on_one_device(run, outputs, batch() | {"is_clip_B": jnp.zeros(1, bool)})
    assert related["nce"] > 0 and unrelated == related | {"nce": 0.0}


def test_pne_reads_a_query_decoders_scores_as_probabilities(monkeypatch):
    """Scores of queries add up to anything; confidences are shares of their sum."""
    config = pne.get_config("demo").loss
    scores = jnp.asarray([[[[[3.0, 1.0, 0.0]]]]])
    monkeypatch.setattr(supervised.segmenter, "cell_scores", lambda outputs: scores)
    monkeypatch.setattr(supervised.pne, "batch_loss", lambda features, scores, *_: scores)
    found = supervised.pne_term({"projection_BTHWC": scores, "encoder": {0: scores}}, batch(), KEYS, config.pne)
    np.testing.assert_allclose(found[0, 0, 0, 0], [0.75, 0.25, 0.0])


def test_labels_are_those_of_the_frames_that_a_decoder_gives():
    """Of a clip whose first frame has no outputs, its labels do not count."""
    label = jnp.asarray(np.stack([np.full((8, 8), 1), np.zeros((8, 8))])[None], jnp.int32)
    logits = jnp.zeros((1, 1, 8, 8, CLASSES)).at[..., 0].set(9.0)
    config = upernet.get_config("demo").loss.segmentation
    run = lambda logits: supervised.pixel_terms({"logits_BTHWC": logits}, label, KEYS, 0, config)
    assert on_one_device(run, logits)["pixel"] < 0.01
    assert on_one_device(run, logits.repeat(2, axis=1))["pixel"] > 4


@pytest.mark.parametrize(
    ("start", "warmup", "shares"),
    [(0, 0, {0: 1, 9: 1}), (5, 0, {4: 0, 5: 1}), (0, 4, {0: 0.25, 3: 1, 90: 1}), (5, 4, {4: 0, 5: 0.25, 8: 1})],
)
def test_warm_up_of_a_weight(start, warmup, shares):
    config = nce.get_config().loss.nce
    config.update(start_step=start, warmup_steps=warmup)
    ramp = jax.jit(lambda step: supervised.ramp(config, step))
    assert {step: float(ramp(step)) for step in shares} == shares


def test_a_contrastive_term_that_is_not_asked_for_costs_nothing():
    """Its code is not even traced: these outputs would not do for it."""
    config = pne.get_config("demo").loss
    config.pne.weight = 0.0
    logits = jnp.zeros((1, 2, 8, 8, CLASSES))
    found = losses({"logits_BTHWC": logits, "auxiliary_logits_BTHWC": logits}, config, "per_pixel")
    assert found == pytest.approx({"pixel": np.log(CLASSES), "auxiliary": 0.4 * np.log(CLASSES)}, rel=1e-6)
