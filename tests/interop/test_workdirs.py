"""Runs of our own as what another run starts from."""

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import mdp, mdp_beit, mdp_finetune, mdp_swin, upernet, upernet_swin
from tests.interop.conftest import drawn, variables
from tests.models import small_network
from vspw_jax.checkpoints import run_classes, run_identity
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.classes import class_list, vspw
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.models.encoders import relative_position
from vspw_jax.training import train_state


@pytest.fixture(autouse=True)
def known(monkeypatch):
    small_network.register(monkeypatch)


def save_run(workdir, model, steps=(3,), ema=None, task="supervised"):
    """A workdir with checkpoints of a model, and perhaps an average."""
    config = ConfigDict({"task": {"name": task}, "model": model.config})
    run_identity.claim_workdir(workdir, config, {})
    checkpoints = Checkpoints(workdir, len(steps))
    zero = jax.numpy.int32(0)
    for step in steps:
        state = dict(zip(("params", "model_state"), train_state.split_model(model)[1:], strict=True))
        if ema is not None:
            parts = train_state.split_model(ema)[1:]
            state["ema"] = dict(zip(("params", "model_state"), parts, strict=True))
        checkpoints.save(step, state | dict(opt_state={"x": jax.numpy.ones(1)}, step=zero, bad_steps=zero))
    checkpoints.close()
    return workdir


def assert_same(ours, theirs):
    ours, theirs = variables(ours), variables(theirs)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_a_network_starts_from_a_workdir_or_from_one_of_its_checkpoints(tmp_path, capsys):
    model = drawn(small_network.config())
    run = save_run(tmp_path / "run", model)
    for place in (run, run / "checkpoints", run / "checkpoints" / "3"):
        assert_same(convert.load_torch(drawn(small_network.config(), seed=1), place), model)
    assert "names are mmsegmentation's, under 'weights'" in capsys.readouterr().out
    assert checkpoint_file.read(run).classes is vspw.classes()
    run_classes.note(run, class_list.coloured(["field", "hedge"]))
    assert checkpoint_file.read(run / "checkpoints").classes.names == ("field", "hedge")


def test_the_average_is_said_and_chosen_by_its_key(tmp_path, capsys):
    model, average = drawn(small_network.config()), drawn(small_network.config(), seed=2)
    run = save_run(tmp_path / "run", model, ema=average)
    assert_same(convert.load_torch(drawn(small_network.config(), seed=1), run), model)
    assert "not taken: 'ema' (an average, by its name); --config.init_from_key=ema takes" in capsys.readouterr().out
    assert_same(convert.load_torch(drawn(small_network.config(), seed=1), run, "ema"), average)


def test_a_run_of_other_classes_starts_all_but_the_classifier(tmp_path, capsys):
    run = save_run(tmp_path / "run", drawn(small_network.config(num_classes=7)))
    with pytest.raises(UserError, match=r"memory.sums \(7, 6\) float32; wanted \(5, 6\)"):
        convert.load_torch(drawn(small_network.config()), run)


SMALLEST = {
    "resnet": dict(width=4, depths=(1, 1, 1, 1)),
    "swin": dict(dim=8, head_dim=4, window=2),
    "beit": dict(dim=16, heads=2),
}


def shrunk(recipe, side=96):
    """config.model of a pretraining or of what starts from it, tiny, for crops of `side` pixels."""
    model = recipe.get_config("demo").model
    model.image_size = (side, side)
    model.encoder.update(SMALLEST[model.encoder.name])
    model.decoder.dim = 8
    if "projection" in model:
        model.projection.update(hidden=4, dim=4)
        model.bank.slots = 2
    return model


def test_a_pretrained_run_starts_all_but_the_classifier_and_gives_its_backbone_away(tmp_path, capsys):
    source = drawn(shrunk(mdp))
    run = save_run(tmp_path / "run", source, task="prototype_pretraining")
    ours = drawn(shrunk(mdp_finetune), seed=1)
    before, after = variables(ours), variables(convert.load_torch(ours, run))
    assert [path for path in after if not (after[path] == variables(source)[path]).all()] == [
        "decoder/classifier/conv/bias",
        "decoder/classifier/conv/kernel",
    ]
    for path in ("decoder/classifier/conv/bias", "decoder/classifier/conv/kernel"):
        np.testing.assert_array_equal(after[path], before[path])
    said = capsys.readouterr().out
    assert "classifier that was not trained there: ours stays as initialised" in said
    assert "projection/conv/kernel" in said and "bank/sums_SKD" in said and "only training uses these" in said
    plan = convert.plan(ours.config, [nnx.to_pure_dict(nnx.state(ours))], run)
    with pytest.raises(UserError, match="so that only training makes use of it"):
        convert.read_weights(plan, [nnx.to_pure_dict(nnx.state(ours))])
    with pytest.raises(UserError, match="does not fit the network of this config"):
        convert.load_torch(drawn(mdp_finetune.get_config("demo").model), run)

    convert.save_torch(source, tmp_path / "X.pth", "torchvision_resnet")
    tensors = checkpoint_file.read(tmp_path / "X.pth").tensors
    assert {name.split(".")[0] for name in tensors} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    other = variables(convert.load_torch(drawn(shrunk(mdp_finetune), seed=2), tmp_path / "X.pth"))
    for path in other:
        if path.startswith("encoder/"):
            np.testing.assert_array_equal(other[path], variables(source)[path], err_msg=path)


@pytest.mark.parametrize(("pretraining", "recipe"), [(mdp_swin, upernet_swin), (mdp_beit, upernet)])
def test_a_pretrained_transformer_starts_upernet_at_a_larger_crop(pretraining, recipe, tmp_path, capsys):
    """The auxiliary head, which the pretraining lacks, stays as drawn; BEiT's tables of positions fit the crop."""
    source = drawn(shrunk(pretraining, side=64))
    run = save_run(tmp_path / "run", source, task="prototype_pretraining")
    ours = drawn(shrunk(recipe, side=96), seed=1)
    expected = variables(ours)
    for path, array in variables(source).items():
        if path in expected and not path.startswith("decoder/classifier/"):
            expected[path] = array
    tables = [path for path in expected if path.endswith("relative_position_bias_table") and recipe is upernet]
    for path in tables:
        resized = [relative_position.resize(table_RG, (4, 4), (6, 6)) for table_RG in expected[path][:, 0]]
        expected[path] = np.stack(resized)[:, None]
    found = variables(convert.load_torch(ours, run))
    assert found.keys() == expected.keys() and len(tables) == (recipe is upernet)
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)
    said = capsys.readouterr().out
    assert "8 variables stay as initialised, as the file has none: decoder/auxiliary_classifier, decoder/auxi" in said
    assert ("tables resized from 4x4 to 6x6 patches" in said) == (recipe is upernet)


@pytest.mark.parametrize(
    ("pretraining", "recipe", "message"),
    [
        (
            mdp_swin,
            upernet,
            r"run does not fit this network.* encoder, beit, has no names in .* \(Swin with UperNet\)\. It has names",
        ),
        (
            mdp_beit,
            upernet_swin,
            r"run does not fit this network.* encoder, swin, has no names in .* \(BEiT with UperNet\)\. It has names",
        ),
        (
            mdp,
            upernet,
            r"does not fit the network .*\nIts encoder is a resnet, the recipe's is a beit\.(.|\n)*mode=inspect",
        ),
    ],
)
def test_a_pretrained_run_of_another_encoder_is_refused(pretraining, recipe, message, tmp_path):
    run = save_run(tmp_path / "run", drawn(shrunk(pretraining, side=64)), task="prototype_pretraining")
    ours = drawn(shrunk(recipe, side=64), seed=1)
    before = variables(ours)
    with pytest.raises(UserError, match=message):
        convert.load_torch(ours, run)
    for path, array in variables(ours).items():
        np.testing.assert_array_equal(array, before[path])


def test_damaged_or_missing_parts_of_a_run_are_said(tmp_path):
    run = save_run(tmp_path / "run", drawn(small_network.config()))
    with pytest.raises(UserError, match="checkpoints/4 cannot be read: No such file"):
        checkpoint_file.read(run / "checkpoints" / "4")
    config = run / "config.json"
    config.rename(run / "aside.json")
    with pytest.raises(UserError, match="config.json is missing, which says what network"):
        checkpoint_file.read(run)
    (run / "aside.json").rename(config)
    manifest = run / "checkpoints" / "3" / "manifest.json"
    manifest.write_text("{}")
    with pytest.raises(UserError, match="is damaged: 3"):
        checkpoint_file.read(run)
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match=f"{empty} holds no checkpoint that is whole"):
        checkpoint_file.read(empty)


def test_a_checkpoint_outside_of_its_workdir_says_where_it_must_lie(tmp_path):
    run = save_run(tmp_path / "run", drawn(small_network.config()))
    alone = (run / "checkpoints" / "3").rename(tmp_path / "3")
    with pytest.raises(
        UserError, match="3 is a checkpoint of a run, without .*: expected it at WORKDIR/checkpoints/STEP"
    ):
        checkpoint_file.read(alone)
