"""Runs of our own as what another run starts from."""

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import mdp, mdp_finetune
from tests.interop.conftest import drawn, variables
from tests.models import small_network
from vspw_jax.checkpoints import run_classes, run_identity
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.classes import class_list, vspw
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert
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


def shrunk(recipe):
    """config.model of a recipe of DeepLabV3 on a ResNet, tiny."""
    model = recipe.get_config("demo").model
    model.encoder.update(width=4, depths=(1, 1, 1, 1))
    model.decoder.dim = 8
    return model


def test_a_pretrained_run_starts_all_but_the_classifier_and_gives_its_backbone_away(tmp_path, capsys):
    model = shrunk(mdp)
    model.projection.update(hidden=4, dim=4)
    model.bank.slots = 2
    source = drawn(model)
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
