"""A teacher's labels for clips without any, and a student that learns from them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import nce, ssltm, upernet, upernet_mean_teacher
from configs.parts import semi_supervised, training
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.console.errors import UserError
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.tasks import mean_teacher, task
from vspw_jax.training import loop, optimizers, train_state, train_step, weight_average

VOID = 255
STEPS = 3


def labelled(score_HWK, shown=None, threshold=0.0, most_classes=None):
    score_HWK = np.asarray(score_HWK, np.float32)
    shown = np.ones(score_HWK.shape[:2], bool) if shown is None else shown
    return np.asarray(mean_teacher.image_labels(score_HWK, shown, threshold, most_classes))


def test_a_pixel_has_the_likeliest_class_where_the_teacher_is_sure():
    """As of shares of the sum: a query decoder's scores do not add up to 1."""
    score = np.array([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]])
    for scale in (1.0, 0.3, 7.0):
        np.testing.assert_array_equal(labelled(scale * score, threshold=0.75), [[0, VOID, 1]])
    np.testing.assert_array_equal(labelled(score), [[0, 0, 1]])


def test_padding_never_has_a_label():
    shown = np.array([[True, True, False]])
    np.testing.assert_array_equal(labelled([[[1, 0], [0, 1], [0, 1]]], shown), [[0, 1, VOID]])


def test_scores_are_resized_to_the_pixels():
    label = labelled([[[1.0, 0.0], [0.0, 1.0]]], np.ones((2, 8), bool), threshold=0.7)
    np.testing.assert_array_equal(label, [[0, 0, 0, VOID, VOID, 1, 1, 1]] * 2)


def test_of_more_classes_than_a_label_may_hold_the_largest_stay():
    score = np.eye(4)[[[0, 1, 1, 2, 2, 2, 3, 3]]]
    np.testing.assert_array_equal(labelled(score, most_classes=3), [[VOID, 1, 1, 2, 2, 2, 3, 3]])
    for most in (4, None):
        np.testing.assert_array_equal(labelled(score, most_classes=most), [[0, 1, 1, 2, 2, 2, 3, 3]])


def test_classes_beyond_a_byte_are_counted_as_the_others_and_void_is_not():
    """Void, which most pixels are, takes no class's room; without a limit all stay."""
    classes = [3, 298, 298, 298, 299, 299, VOID, VOID, VOID, VOID]
    score = np.eye(300)[[classes]]
    np.testing.assert_array_equal(labelled(score, most_classes=2), [[VOID, 298, 298, 298, 299, 299, *[VOID] * 4]])
    everywhere = np.eye(300)[[range(300)]]
    np.testing.assert_array_equal(labelled(everywhere, most_classes=None), [range(300)])


def made_up(shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(scale=2, size=shape), jnp.float32)


def pseudo_terms(config, scores, outputs, shown, step=0):
    """The task's terms of pseudo-labels, on one device."""
    keys = jax.random.split(jax.random.key(0), len(scores))
    the_task = mean_teacher.MeanTeacher(config)
    run = lambda *given: the_task._pseudo_terms(*given, keys, step)
    mesh = make_mesh(devices=jax.devices()[:1])
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))
    return jax.tree.map(float, mapped(scores, outputs, shown))


@pytest.mark.parametrize("averaged_over", ["valid", "confident"])
def test_the_term_is_the_cross_entropy_by_the_teachers_labels(averaged_over):
    """Of both heads, in float64, over the last frames that the decoder gave; and the warm-up of the weight."""
    config = upernet_mean_teacher.get_config("demo")
    config.task.update(weight=0.7, start_step=10, warmup_steps=4, threshold=0.6, averaged_over=averaged_over)
    outputs = {"logits_BTHWC": made_up((3, 1, 4, 4, 5), 1), "auxiliary_logits_BTHWC": made_up((3, 1, 4, 4, 5), 2)}
    scores = jax.nn.softmax(made_up((3, 1, 4, 4, 5), 3))
    shown = np.ones((3, 2, 4, 4), bool)
    shown[1], shown[2, :, :, 3:] = False, False
    found = pseudo_terms(config, scores, outputs, shown, step=11)
    sure = (np.asarray(scores).max(axis=-1) >= 0.6) & shown[:, 1:]
    total = 0.0
    for name, weight in (("logits_BTHWC", 1.0), ("auxiliary_logits_BTHWC", 0.4)):
        logits = np.asarray(outputs[name], np.float64)
        wrong = np.log(np.exp(logits).sum(axis=-1, keepdims=True)) - logits
        of_label = np.take_along_axis(wrong, np.asarray(scores).argmax(axis=-1)[..., None], axis=-1)[..., 0]
        total += weight * (of_label * sure).sum()
    assert 0 < sure.sum() < shown[:, 1:].sum() == 28
    divisor = 28 if averaged_over == "valid" else sure.sum()
    assert found["pseudo"] == pytest.approx(0.7 * 2 / 4 * total / divisor, rel=1e-5)
    assert found["confident"] == pytest.approx(sure.sum() / 28, rel=1e-6)
    assert pseudo_terms(config, scores, outputs, shown, step=9)["pseudo"] == 0


def test_a_query_decoder_learns_from_the_teachers_labels_as_from_any(monkeypatch):
    """Its loss has room for two classes, and the class with fewest pixels loses them."""
    config = semi_supervised.with_teacher(nce.get_config("demo"), "demo")
    config.task.update(start_step=0, averaged_over="confident", threshold=0.5)
    config.loss.segmentation.capacity = 2
    scores = np.zeros((2, 2, 8, 8, 3), np.float32)
    scores[..., :4, 0], scores[..., 4:7, 2], scores[..., 7:, 1] = 0.6, 0.3, 0.1
    shown = np.ones((2, 2, 8, 8), bool)
    shown[0, :, :2] = False
    counted = lambda outputs, label_BTHW, *_: {
        name: (label_BTHW == number).sum().astype(float) for name, number in dict(cls=0, mask=2, dice=1).items()
    }
    monkeypatch.setitem(mean_teacher.TERMS, "mask_classification", counted)
    found = pseudo_terms(config, scores, {}, shown)
    rows, weights = 2 * 6 + 2 * 8, config.loss.segmentation.weights
    assert found["pseudo"] == pytest.approx(rows * (4 * weights.cls + 3 * weights.mask))
    assert found["confident"] == pytest.approx(7 / 8)


def test_a_teachers_scores_are_those_of_evaluation(monkeypatch):
    """Of a coarse map the logits are resized: of the softmax in their place, fewer pixels would be sure."""
    logits = 9 * jnp.eye(3)[jnp.array([[[[0, 1], [2, 0]]]])]
    the_task, given = mean_teacher.MeanTeacher(upernet_mean_teacher.get_config("demo")), []
    guessed = {"logits_BTHWC": logits, "encoder": [jnp.zeros((1, 1, 8, 8, 4))]}
    monkeypatch.setattr(the_task, "_outputs", lambda *_: guessed)
    monkeypatch.setattr(the_task, "_pseudo_terms", lambda scores, *_: given.append(scores) or {})
    monkeypatch.setattr(mean_teacher.supervised, "clip_losses", lambda *_: {})
    views = {name: jnp.zeros((1, 1, 32, 32, 3)) for name in ("image_BTHWC", "strong_image_BTHWC")}
    batch = {**views, "unlabelled_BTHW": jnp.ones((1, 1, 32, 32), bool)}
    the_task.losses(None, object(), batch, jax.random.split(jax.random.key(0), 1), 0, 1.0)
    resized = jax.image.resize(logits, (1, 1, 8, 8, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(given[0], jax.nn.softmax(resized), rtol=1e-5)


@pytest.mark.parametrize("recipe", [ssltm, upernet, nce])
def test_a_teacher_takes_no_labelled_clip_from_a_step(recipe):
    """And it begins after an epoch of these. What a query decoder is not told is no background."""
    alone, taught = recipe.get_config(), semi_supervised.with_teacher(recipe.get_config(), "full")
    assert taught.train.batch * (1 - taught.data.unlabelled_share) == alone.train.batch
    assert (taught.train.steps, taught.train.epochs) == (alone.train.steps, alone.train.epochs)
    assert taught.task.start_epoch == 1
    assert taught.loss.segmentation.get("void", "excluded") == "excluded"
    task.check(taught)


@pytest.fixture
def config(small_config):
    """The small network with a teacher that is sure of some pixels."""
    config = semi_supervised.with_teacher(small_config, "demo")
    config.task.update(start_step=0, threshold=0.0099)
    config.optimizer = training.sgd(learning_rate=0.1)  # Adam's first steps are signs, which rounding turns over.
    config.train.steps = STEPS
    config.ema.decay = 0.9
    config.run.picture_every = 1000
    return config


@pytest.fixture
def batch(random_batch):
    """Four labelled clips and four unlabelled ones; some of the frames end before the crop does."""
    rng = np.random.default_rng(1)
    random_batch["label_BTHW"][1::2] = VOID
    random_batch["unlabelled_BTHW"] = np.zeros((8, 1, 32, 32), bool)
    random_batch["unlabelled_BTHW"][1::2, :, :, :28] = True
    random_batch["strong_label_BTHW"] = random_batch["label_BTHW"]
    noise = rng.normal(size=random_batch["image_BTHWC"].shape).astype(np.float32)
    return {**random_batch, "strong_image_BTHWC": random_batch["image_BTHWC"] + 0.3 * noise}


def steps_of(config, batches, num_devices, fsdp=1):
    """The states before, between and after a step for each batch, and the steps' metrics."""
    config.sharding.update(fsdp=fsdp, whole_below=64)
    mesh = make_mesh(8, devices=jax.devices()[:num_devices], fsdp=fsdp)
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    state = train_state.new_state(config, optimizer, mesh)
    step = train_step.make_train_step(config, graphdef, optimizer, mesh)
    states, made = [jax.tree.map(np.asarray, state)], []
    for batch in batches:
        state, metrics = step(state, placement.to_global(mesh, batch), train_step.seed_of(config))
        states.append(jax.tree.map(np.asarray, state))
        made.append(jax.tree.map(float, metrics))
    return states, made


def assert_equal(one, other, check=np.testing.assert_array_equal):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(check, one, other)


def test_devices_change_nothing_and_the_teacher_is_the_average(config, batch):
    """Of the weights of every step, to the last bit, which the compiler may round otherwise; statistics are its own."""
    states, alone = steps_of(config, [batch] * STEPS, num_devices=1)
    update = jax.jit(functools.partial(weight_average.updated, config.ema))
    for before, after in zip(states[:-1], states[1:], strict=True):
        own = after["ema"]["model_state"]
        ema = update(before["ema"], after["params"], after["model_state"], own, before["step"])
        jax.tree.map(to_the_last_bit, after["ema"]["params"], ema["params"], before["ema"]["params"], after["params"])
    together, divided = steps_of(config, [batch] * STEPS, num_devices=8, fsdp=4)
    for one, other in zip(alone, divided, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-6)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    assert_equal(together[-1]["ema"], states[-1]["ema"], close)
    assert 0 < alone[0]["confident"] < 1 and alone[0]["pseudo"] > 0
    parts = sum(alone[0][name] for name in ("pixel", "auxiliary", "pseudo"))
    assert alone[0]["loss"] == pytest.approx(parts, rel=1e-5)  # A figure is no part of it.
    mean = lambda state: state["decoder"]["norm"]["mean"]
    assert np.abs(mean(after["model_state"]) - mean(after["ema"]["model_state"])).max() > 1e-6
    check_what_is_read(config, batch, states)


def to_the_last_bit(found, expected, old, new):
    """One bit of the weights that were averaged, which fused multiplications round otherwise."""
    assert (np.abs(found - expected) <= np.spacing(np.maximum(np.abs(old), np.abs(new)))).all()


def check_what_is_read(config, batch, states):
    """Of labelled clips the strong view is not, of unlabelled ones the student never sees the weak one, and what lies
    beyond their frames has no effect but through statistics and context."""
    is_labelled = ~batch["unlabelled_BTHW"].any(axis=(1, 2, 3))
    changed = dict(batch, strong_image_BTHWC=batch["strong_image_BTHWC"].copy())
    changed["strong_image_BTHWC"][is_labelled] = np.nan
    changed["strong_label_BTHW"] = np.full_like(batch["strong_label_BTHW"], 7)
    again, _ = steps_of(config, [changed], num_devices=1)
    assert_equal(again[1], states[1])


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(config, tmp_path, monkeypatch):
    whole = jax.tree.map(np.asarray, loop.train(config, tmp_path / "whole"))
    read = loop.Run.read

    def interrupted(run, batches, stop):
        if run.checkpoints.latest_step() == 2:
            raise KeyboardInterrupt
        return read(run, batches, stop)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Run, "read", interrupted)
        loop.train(config, tmp_path / "parts")
    assert Checkpoints(tmp_path / "parts", keep=3).latest_step() == 2
    assert_equal(jax.tree.map(np.asarray, loop.train(config, tmp_path / "parts")), whole)
    assert '"confident"' in (tmp_path / "parts" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("task.averaged_over", "all", "task.averaged_over is 'all': expected one of confident, valid"),
        ("data.views", "one", "data.views is 'one': expected weak_and_strong, as task.name is 'mean_teacher'"),
        ("data.unlabelled_share", 0.0, "a teacher .* has no clips to label. Set --config.data.unlabelled_share"),
        ("loss.segmentation.averaged_over", "all", "clips without labels would weaken the loss"),
    ],
)
def test_what_a_teacher_cannot_teach_is_refused(path, value, says):
    config = upernet_mean_teacher.get_config("demo")
    task.check(config)
    config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError, match=says):
        task.check(config)


def test_a_teacher_needs_an_average():
    config = upernet_mean_teacher.get_config("demo")
    del config.ema
    with pytest.raises(UserError, match=r"evaluate.weights|task.name is 'mean_teacher', whose teacher is an average"):
        weight_average.check(config, task.needs_teacher(config))
