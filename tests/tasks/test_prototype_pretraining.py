"""Paper 003's pretraining: its loss against loops, the same on any devices, what it leaves for others, bad recipes."""

import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from configs import mdp, mdp_finetune
from configs.parts import losses, models, training
from data_prep import generate
from tests.losses.test_prototypes import equation_2, equation_8
from tests.tasks.test_task import steps_of
from vspw_jax.checkpoints import run_classes
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixing
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.losses import patch_labels
from vspw_jax.models import segmenter
from vspw_jax.models.banks.class_bank import ClassBank
from vspw_jax.models.banks.region_bank import RegionBank
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import DATA_AXES, make_mesh
from vspw_jax.tasks import prototype_pretraining
from vspw_jax.tasks.prototype_pretraining import PrototypePretraining
from vspw_jax.training import checks, loop, optimizers, train_state, train_step

CLIPS, SIDE, CELLS, K = 4, 8, 2, 6
"""K as in the loops of the losses."""


def batch_of(seed=0, clips=CLIPS, side=SIDE):
    """Two views of single frames. Class 4 is in the second view alone; image 1 is void everywhere."""
    rng = np.random.default_rng(seed)
    batch = {"is_clip_B": np.ones(clips, bool)}
    for prefix, classes in (("", [0, 1, 2, 255]), ("second_", [0, 1, 2, 4])):
        batch[f"{prefix}image_BTHWC"] = rng.normal(size=(clips, 1, side, side, 3)).astype(np.float32)
        label = rng.choice(classes, (clips, 1, side, side))
        label[1] = 255
        batch[f"{prefix}label_BTHW"] = label.astype(np.int32)
    return batch


def cells_of(image):
    """What the made-up networks project: the centre pixel of each quarter."""
    return image[:, :, SIDE // 4 :: SIDE // 2, SIDE // 4 :: SIDE // 2]


def network(bank, sign):
    """A made-up network without weights; its features have a sign, so that the teacher's differ from the model's."""

    def run(image_BTHWC, train, key_B=None):
        assert train
        return {"projection_BTHWC": sign * cells_of(image_BTHWC) + 0.1}

    made = types.SimpleNamespace(bank=bank)
    return type("Network", (), {"__call__": lambda self, *x, **y: run(*x, **y), **vars(made)})()


BANKS = {"class": ClassBank, "region": RegionBank, "none": None}


def recipe(kind, **changes):
    config = mdp.get_config("demo")
    config.train.batch, config.model.num_classes = CLIPS, K
    config.model.bank.update(kind=kind, slots=2, images=2 * CLIPS + 3)
    config.loss.prototypes.weights.mixed = 0.5 * (kind != "none")
    config.loss.prototypes.update(changes)
    PrototypePretraining.check(config)
    return config


def terms_of(config, batch, keys):
    """What the task gives on one device, with an empty bank, and the bank's keys of the mixed view."""
    the_task, bank = PrototypePretraining(config), BANKS[config.model.bank.kind]

    def run(batch, keys):
        made = bank(K, 3, config.model.bank) if bank else None
        return the_task.losses(network(made, 1), network(None, -1), batch, keys, 0, 1.0)

    mesh = make_mesh(CLIPS, devices=jax.devices()[:1])
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False))(batch, keys)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_image(batch, prefix, sign):
    """(features, labels) of the cells of every image."""
    features = unit(sign * cells_of(batch[f"{prefix}image_BTHWC"]).astype(np.float64) + 0.1)
    return features.reshape(CLIPS, -1, 3), cells_of(batch[f"{prefix}label_BTHW"]).reshape(CLIPS, -1)


def means_of(batch):
    """[(class, mean of its cells in an image of the teacher)]."""
    images = [pair for prefix in ("", "second_") for pair in zip(*by_image(batch, prefix, -1), strict=True)]
    return [(k, x[y == k].mean(axis=0)) for x, y in images for k in range(K) if (y == k).any()]


KEYS = jax.random.split(jax.random.key(3), CLIPS)


@pytest.mark.parametrize("sparse", [(), ("first", "mixed")])
def test_views_are_pulled_to_prototypes_that_their_own_images_are_in(sparse):
    config, batch = recipe("class", sparse_views=sparse, top=2), batch_of()
    fields = config.loss.prototypes
    found = terms_of(config, batch, KEYS)
    means, valid = means_of(batch), np.zeros(K, bool)
    rows = np.zeros((K, 3))
    for k in range(K):
        of_class = [mean for label, mean in means if label == k]
        valid[k] = bool(of_class)
        rows[k] = unit(np.mean(of_class, axis=0)) if of_class else 0
    assert valid.tolist() == [True, True, True, False, True, False]

    def loss(name, features, labels):
        options = (fields.alpha, fields.top) if name in sparse else ()
        return equation_8(features, labels, rows, valid, *options)

    for name, prefix in (("first", ""), ("second", "second_")):
        features, labels = by_image(batch, prefix, 1)
        expected = loss(name, features.reshape(-1, 3), labels.reshape(-1)) / 2.5  # The weights' sum.
        assert float(found[f"{name}_view"]) == pytest.approx(expected, rel=1e-5)

    mixed = mixed_view(config, batch)
    features = unit(cells_of(mixed["image_BTHWC"]).astype(np.float64) + 0.1).reshape(-1, 3)
    label, other, weight = (
        cells_of(mixed[name]).reshape(-1) for name in ("label_BTHW", "other_label_BTHW", "weight_BTHW")
    )
    value = count = 0.0
    for labels, share in ((label, weight), (other, 1 - weight)):
        for feature, y, w in zip(features, labels, share, strict=True):
            if y != 255:
                value, count = value + w * loss("mixed", feature[None], [y]), count + w
    assert float(found["mixed_view"]) == pytest.approx(0.5 * value / count / 2.5, rel=1e-4)


def mixed_view(config, batch, num_devices=1):
    """The third view that the task makes of a batch."""
    mixing_keys = jnp.moveaxis(jax.vmap(jax.random.split)(KEYS), 1, 0)[0]
    run = lambda batch, keys: prototype_pretraining.mixed(batch, keys, config.loss.prototypes)
    mesh = make_mesh(CLIPS, devices=jax.devices()[:num_devices])
    split = P(DATA_AXES)
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=split, out_specs=split, check_vma=False))
    return jax.tree.map(np.asarray, mapped(batch, mixing_keys))


def test_regions_are_contrasted_one_by_one():
    config, batch = recipe("region"), batch_of()
    found = terms_of(config, batch, KEYS)
    labels, keys = zip(*means_of(batch), strict=True)
    features, own = by_image(batch, "second_", 1)
    expected = equation_2(features.reshape(-1, 3), own.reshape(-1), unit(np.array(keys)), labels) / 2.5
    assert float(found["second_view"]) == pytest.approx(expected, rel=1e-5)
    assert set(found) == {"first_view", "second_view", "mixed_view"}


def test_without_a_bank_each_image_is_contrasted_with_its_other_view():
    config, batch = recipe("none"), batch_of()
    found = terms_of(config, batch, KEYS)
    for name, view, other in (("first", "", "second_"), ("second", "second_", "")):
        values = []
        for x, y, keys, of_keys in zip(*by_image(batch, view, 1), *by_image(batch, other, -1), strict=True):
            for feature, label in zip(x, y, strict=True):
                if label != 255 and label in of_keys:
                    values.append(equation_2(feature[None], [label], keys, of_keys))
        assert float(found[f"{name}_view"]) == pytest.approx(np.mean(values) / 2, rel=1e-5)
    assert set(found) == {"first_view", "second_view"}


@pytest.mark.parametrize("kind", BANKS)
def test_images_that_are_void_alone_give_terms_and_gradients_of_0(kind):
    """There are no cells to take a mean over, and no prototype to pull to."""
    config, batch = recipe(kind), batch_of()
    images = {name: x for name, x in batch.items() if "image" in name}
    void = batch | {name: np.full_like(x, 255) for name, x in batch.items() if "label" in name}
    terms = terms_of(config, void, KEYS)
    assert len(terms) == 3 - (kind == "none") and all(float(term) == 0 for term in terms.values())
    gradients = jax.grad(lambda images: sum(terms_of(config, void | images, KEYS).values()))(images)
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, 0, err_msg=name)


def test_every_clip_is_mixed_with_another_by_either_law_the_same_on_any_devices():
    config, batch = recipe("class"), batch_of()
    alone, together = (mixed_view(config, batch, num_devices) for num_devices in (1, 4))
    for name, array in alone.items():
        np.testing.assert_array_equal(together[name], array)
    laws = set()
    for clip in range(CLIPS):
        own, weight = batch["image_BTHWC"][clip], alone["weight_BTHW"][clip]
        (partner,) = [
            p for p in range(CLIPS) if (batch["label_BTHW"][p] == alone["other_label_BTHW"][clip]).all()
        ]  # fmt: skip
        assert partner != clip
        laws.add("cutmix" if set(np.unique(weight)) <= {0, 1} else "mixup")
        expected = weight[..., None] * own + (1 - weight[..., None]) * batch["image_BTHWC"][partner]
        np.testing.assert_allclose(alone["image_BTHWC"][clip], expected, rtol=1e-5, atol=1e-6)
    assert laws == set(mixing.MIXINGS)
    only = recipe("class", mixing=("mixup",))
    assert not set(np.unique(mixed_view(only, batch)["weight_BTHW"])) <= {0, 1}


def test_labels_are_those_at_the_centres_of_cells():
    x = np.arange(6 * 9).reshape(1, 1, 6, 9)
    np.testing.assert_array_equal(patch_labels.centre(x, 2, 3)[0, 0], x[0, 0, 1::3, 1::3])
    np.testing.assert_array_equal(patch_labels.centre(x, 6, 9), x)


@pytest.fixture
def config(small_config):
    """The small network, its encoder's finest map projected."""
    small_config.task = training.prototype_pretraining()
    small_config.model.num_classes = 5
    small_config.model.projection = models.projection()
    small_config.model.projection.update(dim=8, hidden=16, layers=3, level=0)
    small_config.model.bank = models.bank()
    small_config.model.bank.slots = 2
    small_config.loss = ConfigDict(dict(weight=1.0, prototypes=losses.prototypes()))
    small_config.optimizer = training.sgd(learning_rate=0.1)
    small_config.ema = training.key_encoder(0.9)
    small_config.data.views = "two"
    small_config.run.afterwards = ()
    small_config.train.steps = 4
    checks.check_recipe(small_config)
    return small_config


@pytest.fixture
def two_views():
    return batch_of(clips=8, side=32)


def resumed(config, batch, folder):
    """[metrics] and the state after three steps on one device, and the state where the last two follow a restart."""
    mesh = make_mesh(8, devices=jax.devices()[:1])
    graphdef, params, _ = train_state.describe(config)
    optimizer = optimizers.build(config, params)
    state = train_state.new_state(config, optimizer, mesh)
    step = train_step.make_train_step(config, graphdef, optimizer, mesh)
    inputs = placement.to_global(mesh, batch), train_step.seed_of(config)
    made = []
    checkpoints = Checkpoints(folder, keep=1)
    for number in range(3):
        state, metrics = step(state, *inputs)
        made.append(jax.tree.map(float, metrics))
        if number == 0:
            checkpoints.save(1, state)
    checkpoints.close()
    again = train_state.restore_state(config, optimizer, Checkpoints(folder, keep=1), mesh)
    for _ in range(2):
        again, _ = step(again, *inputs)
    return made, *(jax.tree.map(np.asarray, x) for x in (state, again))


def test_restarts_devices_and_parts_change_nothing(config, two_views, tmp_path):
    """Losses, weights and the bank over three steps: its two slots wrap around. In parts, norms see fewer images."""
    alone, after, again = resumed(config, two_views, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, after)
    _, together, after_together = steps_of(config, two_views, num_devices=8, fsdp=4)
    for one, (_, other) in zip(alone, together, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
        assert one["first_view"] > 0 and one["second_view"] > 0 and one["mixed_view"] > 0
    for part in ("params", "model_state", "ema"):
        for one, other in zip(jax.tree.leaves(after[part]), jax.tree.leaves(after_together[part]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)
    bank = after["model_state"]["bank"]
    assert bank["next"] == 1 and bank["images_SK"].min(axis=0).tolist() == [14, 14, 14, 0, 7]
    kernels = [state["params"]["decoder"]["classifier"]["kernel"] for state in (together[0][0], after)]
    np.testing.assert_allclose(*kernels, rtol=1e-2)  # Only weight decay reaches the classifier.
    assert (kernels[0] != kernels[1]).any()
    _, _, parted = steps_of(config, two_views, num_devices=2, accumulate=2, count=1)
    parted = parted["model_state"]["bank"]
    assert parted["next"] == 1
    np.testing.assert_array_equal(parted["images_SK"], [[14, 14, 14, 0, 7], [0] * 5])


BAD = {
    "other losses": (
        {"loss.segmentation": losses.per_pixel()},
        "config.loss has the sections .*segmentation",
    ),
    "one view": ({"data.views": "one"}, "data.views is 'one': expected two or two_frames"),
    "no projection": ({"model.projection.dim": 0, "model.bank.kind": "none"}, "reads a projection and a bank"),
    "bank without projection": ({"model.projection.dim": 0}, "has a bank of projected features, but no projection"),
    "bank": ({"model.bank.kind": "prototype"}, "model.bank.kind is 'prototype': expected one of class, none, region"),
    "small bank": (
        {"model.bank.kind": "region", "model.bank.images": 15},
        r"model.bank.images is 15, but a step brings 16 .*Set --config.model.bank.images=16",
    ),
    "no slot": ({"model.bank.slots": 0}, "model.bank.slots is 0: expected a whole number from 1"),
    "no view": (
        {f"loss.prototypes.weights.{name}": 0.0 for name in ("first", "second", "mixed")},
        "Every weight of loss.prototypes.weights is 0",
    ),
    "unknown view": ({"loss.prototypes.sparse_views": ("third",)}, "loss.prototypes.sparse_views is 'third'"),
    "unknown mixing": ({"loss.prototypes.mixing": ("mosaic",)}, "loss.prototypes.mixing is 'mosaic'.*cutmix, mixup"),
    "no mixing": ({"loss.prototypes.mixing": ()}, "loss.prototypes.mixing is empty"),
    "sparse regions": (
        {"model.bank.kind": "region", "loss.prototypes.sparse_views": ("first",)},
        "sparse coding needs prototypes of classes",
    ),
    "mixed pixels": ({"model.bank.kind": "none"}, "without a bank .*weights.mixed=0"),
    "one clip": ({"train.batch": 2, "train.accumulate": 2}, r"has 1 clip .*--config.train.batch=4"),
    "afterwards": ({"run.afterwards": ("evaluate",)}, "run.afterwards asks for evaluate, .* trains no classifier"),
    "no average": ({"ema": None}, "whose teacher is an average of the weights"),
}


NARROW = {
    "model.image_size": (32, 32),
    "model.encoder.width": 4,
    "model.decoder.dim": 8,
    "model.projection.hidden": 8,
    "model.projection.dim": 4,
    "model.bank.slots": 2,
    "loss.prototypes.weights.mixed": 0.0,  # A pass less to compile.
    "evaluate.stride": (32, 32),
    "train.steps": 2,
}


def test_a_drawn_set_keeps_its_own_classes_and_fine_tuning_starts_from_the_run(generated_records, tmp_path, capsys):
    """Its classes are counted before it is drawn."""
    config, workdir = mdp.get_config("demo"), tmp_path / "run"
    config.update_from_flattened_dict({**NARROW, "data.records": str(generated_records)})
    images = config.data.mixture.coco_stuff
    images.generate.update(train=8, val=1, height=48, width=64, source=str(tmp_path / "images"))
    images.records = images.generate.records = str(tmp_path / "records")
    run_classes.adopt(config.lock(), run_classes.of_run(config, workdir, trains=True), is_stated=False)
    generate.for_recipe(config)
    loop.train(config, workdir)
    assert len(run_classes.kept(workdir)) == config.model.num_classes == 124 + 171 + 1
    images_SK = checkpoint_file.read(workdir).tensors["bank/images_SK"].read()
    assert images_SK.shape == (2, 296) and images_SK[:, :124].any() and images_SK[:, 124:].any()

    tuned = mdp_finetune.get_config("demo").model
    tuned.update_from_flattened_dict({"encoder.width": 4, "decoder.dim": 8})
    convert.load_torch(segmenter.build(tuned, jax.random.key(0)), workdir)
    assert "classifier that was not trained there: ours stays as initialised" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_a_pretraining_predicts_nothing_and_draws_no_data_to_say_so(command_line, tmp_path, monkeypatch, mode):
    monkeypatch.chdir(tmp_path)
    recipe = pathlib.Path(mdp.__file__)
    status, _, errors = command_line(f"--config={recipe}:demo", f"--workdir={tmp_path / 'run'}", f"--mode={mode}")
    assert status == 2 and f"--mode={mode} predicts, but" in errors and "configs/mdp_finetune.py" in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_a_recipe_that_cannot_be_is_refused(changes, message):
    config = mdp.get_config("demo")
    for path, value in changes.items():
        *parents, name = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[name]
        else:
            node[name] = value
    with pytest.raises(UserError, match=message):
        checks.check_recipe(config)
