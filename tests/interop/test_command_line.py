"""Training from a PyTorch checkpoint, export from a workdir, and what --mode=inspect shows."""

import functools
import os
import pickle
import subprocess
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import segformer
from tests.inputs import published, workdirs
from tests.interop.conftest import drawn, tiny_recipe
from vspw_jax import main
from vspw_jax.checkpoints.checkpoint import Checkpoints
from vspw_jax.console.errors import UserError
from vspw_jax.inspection import report
from vspw_jax.interop import checkpoint_file, convert
from vspw_jax.interop.stored_tensors import NewTensor
from vspw_jax.models.encoders.vit_adapter import ViTAdapter
from vspw_jax.parallel import placement
from vspw_jax.parallel.mesh import make_mesh
from vspw_jax.training import loop, train_state


def export(monkeypatch, config, workdir, path, naming="mmseg"):
    monkeypatch.setattr(main, "_OUTPUT", types.SimpleNamespace(value=path and str(path)))
    monkeypatch.setattr(main, "_NAMING", types.SimpleNamespace(value=naming))
    return main.run_export(config, workdir)


def test_a_workdir_started_from_a_file_exports_that_file(
    tiny, tiny_config, tmp_path, monkeypatch, without_network, capsys
):
    """A training run whose only step changes nothing: what it read is what it exports, bit for bit."""
    tiny_config.train.steps = 1
    tiny_config.init_from = str(tmp_path / "A.pth")
    convert.save_torch(drawn(tiny_config.model), tmp_path / "A.pth")

    def new_state(config, transformation, mesh):
        _, params, model_state = train_state.split_model(drawn(config.model, seed=1))
        counts = {name: jnp.zeros((), int) for name in ("step", "bad_steps")}
        state = dict(params=params, model_state=model_state, opt_state=transformation.init(params), **counts)
        return jax.device_put(state, placement.replicated(mesh))

    one_device = functools.partial(make_mesh, devices=jax.devices()[:1])  # Orbax slices what several hold.
    monkeypatch.setattr(train_state, "make_mesh", one_device)
    without_network(new_state=new_state, loss=1.0, gradient_norm=1.0, learning_rate=1.0)
    loop.train(tiny_config, tmp_path / "run")
    assert "388 read as they are" in capsys.readouterr().out
    assert export(monkeypatch, tiny_config, tmp_path / "run", tmp_path / "B.safetensors")
    before, after = (checkpoint_file.read(tmp_path / name).tensors for name in ("A.pth", "B.safetensors"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(tensor.read(), after[name].read(), err_msg=name)

    # The same command goes on from the checkpoint; with another file, neither that nor any other command does.
    loop.train(tiny_config, tmp_path / "run")
    tiny_config.init_from = str(tmp_path / "absent.pth")
    with pytest.raises(UserError, match="absent.pth .no such file. would not be read"):
        loop.train(tiny_config, tmp_path / "run")
    with pytest.raises(UserError, match="absent.pth .no such file. would not be read"):
        export(monkeypatch, tiny_config, tmp_path / "run", tmp_path / "C.safetensors")


def test_training_refuses_a_file_that_does_not_fit_before_it_compiles(tiny_config, tmp_path, monkeypatch):
    convert.save_torch(drawn(tiny_recipe(num_classes=150).model), tmp_path / "A.pth")
    tiny_config.model.encoder.depth = 8
    tiny_config.init_from = str(tmp_path / "A.pth")
    monkeypatch.setattr(train_state, "new_state", lambda *_: pytest.fail("compiled"))
    with pytest.raises(UserError, match="missing from the file"):
        loop.train(tiny_config, tmp_path / "run")


def test_export_needs_a_name_and_a_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--output=X.pth"):
        export(monkeypatch, tiny_recipe(), tmp_path, None)
    with pytest.raises(UserError, match="no checkpoint"):
        export(monkeypatch, tiny_recipe(), tmp_path, tmp_path / "X.pth")


def test_a_naming_of_another_network_is_refused(tmp_path):
    with pytest.raises(
        UserError,
        match="encoder, vit_adapter, has no names in .* hugging_face_upernet: .* It has names in mmseg, .*unilm",
    ):
        convert.save_torch(drawn(tiny_recipe().model), tmp_path / "X.pth", "hugging_face_upernet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("naming", ViTAdapter.TORCH_NAMES)
def test_any_workdir_exports_in_any_naming(naming, tmp_path, monkeypatch):
    config = tiny_recipe()
    model = drawn(config.model)
    _, params, model_state = train_state.split_model(model)
    save(tmp_path, 3, params, model_state)
    export(monkeypatch, config, tmp_path, tmp_path / "X.pth", naming)
    convert.save_torch(model, tmp_path / "Y.pth", naming)
    found, wanted = (checkpoint_file.read(tmp_path / name).tensors for name in ("X.pth", "Y.pth"))
    assert list(found) == list(wanted)  # The files differ in what they say of classes, which a workdir knows.
    assert all(np.array_equal(found[name].read(), tensor.read()) for name, tensor in wanted.items())


def test_a_file_is_evaluated_or_exported_without_training(tmp_path, monkeypatch):
    config = tiny_recipe()
    convert.save_torch(drawn(config.model), tmp_path / "A.pth")
    config.init_from = str(tmp_path / "A.pth")
    export(monkeypatch, config, tmp_path / "run", tmp_path / "B.pth")
    assert (tmp_path / "A.pth").read_bytes() == (tmp_path / "B.pth").read_bytes()
    config.model.num_classes = 150
    with pytest.raises(UserError, match=r"leaves 2 variables as initialised, such as decoder/cls_embed"):
        export(monkeypatch, config, tmp_path / "run", tmp_path / "B.pth")
    convert.save_torch(drawn(tiny_recipe().model), tmp_path / "A.pth", "unilm")
    with pytest.raises(UserError, match="only training makes use of it"):
        export(monkeypatch, config, tmp_path / "run", tmp_path / "B.pth")


def test_weights_that_hold_nan_are_refused_whatever_they_come_from(tmp_path, monkeypatch):
    """By evaluation, prediction and export alike, which get them from one function; and by training."""
    config = tiny_recipe()
    _, *weights = train_state.split_model(drawn(config.model))
    workdirs.put_nan(weights[0], "decoder/cls_embed/bias")
    convert.save_weights(config.model, weights, tmp_path / "A.pth")
    config.init_from = str(tmp_path / "A.pth")
    message = "holds NaN or infinity in 1 of .* arrays: params/decoder/cls_embed/bias."
    with pytest.raises(UserError, match=f"A.pth {message}"):
        export(monkeypatch, config, tmp_path / "run", tmp_path / "B.pth")
    config.init_from = ""
    save(tmp_path / "run", 3, *weights)
    with pytest.raises(UserError, match=f"The checkpoint of step 3 in {tmp_path / 'run'} {message}"):
        export(monkeypatch, config, tmp_path / "run", tmp_path / "B.pth")
    assert not (tmp_path / "B.pth").exists()


def save(workdir, step, params, model_state):
    """A checkpoint of these weights."""
    checkpoints = Checkpoints(workdir, 1)
    training = dict(opt_state={"x": jnp.ones(1)}, step=jnp.int32(step), bad_steps=jnp.int32(0))
    checkpoints.save(step, dict(params=params, model_state=model_state, **training))
    checkpoints.close()


def test_inspect_shows_what_is_in_a_file_and_what_would_be_taken(tmp_path):
    config = tiny_recipe()
    assert report.describe_checkpoint(config) == []
    convert.save_torch(drawn(tiny_recipe(num_classes=150, image_size=(64, 64)).model), tmp_path / "A.pth")
    config.init_from = str(tmp_path / "A.pth")
    text = "\n".join(report.describe_checkpoint(config))
    for part in (
        "A.pth: 376 tensors",
        "under 'state_dict'",
        "4 x backbone.blocks.*.attn.qkv.weight (96, 32) float32",
        "4 x backbone.blocks.*.attn.relative_position_index (17, 17) int64",
        "4 relative position tables resized from 4x4 to 6x4 patches",
        "2 classifier of 150 classes for our 124: by ade20k_to_vspw.csv",
    ):
        assert part in text
    config.model.encoder.depth = 8
    assert "Training would refuse it:" in "\n".join(report.describe_checkpoint(config))


def test_a_hostile_file_ends_the_program_with_status_2(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'PWNED'}",)

    with zipfile.ZipFile(tmp_path / "X.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {"weight": Hostile()}}, 2))
    command = [sys.executable, "-m", "vspw_jax.main", "--config=configs/baseline.py:demo", "--mode=inspect"]
    command += [f"--config.init_from={tmp_path / 'X.pth'}", f"--workdir={tmp_path / 'run'}"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    assert result.returncode == 2
    assert "posix.system" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "PWNED").exists()


def test_a_file_of_another_size_is_named_with_the_flags_for_it(tmp_path, command_line):
    """MiT-B0 for a recipe of MiT-B2."""
    arrays = published.zeros(published.in_size(segformer.get_config(), "MiT-B0"), "nvlabs_mit")
    tensors = {name: NewTensor(array.shape, array.dtype, lambda array=array: array) for name, array in arrays.items()}
    checkpoint_file.write(tmp_path / "mit_b0.safetensors", tensors, None)
    flags = [f"--config.init_from={tmp_path / 'mit_b0.safetensors'}", f"--workdir={tmp_path / 'run'}"]
    status, _, errors = command_line("--config=configs/segformer.py", "--mode=export", "--output=X.pth", *flags)
    assert status == 2 and "Traceback" not in errors
    assert (
        "\nIts encoder is a MiT-B0; the recipe has a MiT-B2. Set --config.model.encoder.dims='(32, 64, 160, 256)' "
        "--config.model.encoder.depths='(2, 2, 2, 2)' --config.model.encoder.head_dim=32.\n"
    ) in errors
