"""The classes' names in files that we write: where others look for them, and read back."""

import json
import types

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from tests.interop.conftest import drawn, tiny_recipe, tiny_upernet
from tests.interop.test_torch_files import tensors_of
from vspw_jax import main
from vspw_jax.checkpoints import run_classes
from vspw_jax.classes import class_list, class_union, label_maps, vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, safetensors_files
from vspw_jax.training import trained
from vspw_jax.training.trained import Trained

OWN = ClassList(("field", "hédge", "gate"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ((10, 20, 30), (0, 0, 0), (255, 0, 9)))
MEMBER = dict(split="train", weight=1.0, epoch="frame", frame_gap=1, fits=("exact",), min_mapped=0.0, denominator="all")
TENSORS = tensors_of({"backbone.cls_token": np.arange(6, dtype=np.float32).reshape(1, 2, 3)})


def test_a_pth_names_them_as_both_versions_of_mmsegmentation_do(tmp_path):
    torch = pytest.importorskip("torch")
    convert.save_torch(drawn(tiny_upernet(num_classes=3)), tmp_path / "A.pth", classes=OWN)
    stored = torch.load(tmp_path / "A.pth", weights_only=True)
    assert set(stored) == {"state_dict", "meta"}
    palette = [list(colour) for colour in OWN.file_colours]
    assert stored["meta"]["CLASSES"] == stored["meta"]["dataset_meta"]["classes"] == OWN.names
    assert stored["meta"]["PALETTE"] == stored["meta"]["dataset_meta"]["palette"] == palette
    found = checkpoint_file.read(tmp_path / "A.pth")
    assert stored["state_dict"].keys() == found.tensors.keys()
    assert all(np.array_equal(stored["state_dict"][name], tensor.read()) for name, tensor in found.tensors.items())
    assert (found.classes.names, found.classes.file_colours) == (OWN.names, OWN.file_colours)


def test_safetensors_have_them_in_the_header(tmp_path):
    checkpoint_file.write(tmp_path / "A.safetensors", TENSORS, None, OWN)
    found = checkpoint_file.read(tmp_path).classes  # A folder means the file that it holds.
    assert (found.names, found.file_colours) == (OWN.names, OWN.file_colours)
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(tmp_path / "A.safetensors", "np") as file:
        assert json.loads(file.metadata()["classes"]) == list(OWN.names) and file.metadata()["format"] == "pt"
        np.testing.assert_array_equal(file.get_tensor("backbone.cls_token"), np.arange(6).reshape(1, 2, 3))


@pytest.mark.parametrize(
    "texts", [{}, {"classes": "[1]"}, {"classes": "["}, {"classes": '["a", "b"]', "palette": "{}"}]
)
def test_headers_that_name_no_classes(texts, tmp_path):
    safetensors_files.write(tmp_path / "A.safetensors", TENSORS, texts)
    found = checkpoint_file.read(tmp_path / "A.safetensors").classes
    assert found.names == ("a", "b") if "palette" in texts else found is None


def test_vspws_names_are_vspws_and_more_than_bytes_are_read(tmp_path):
    many = [class_list.coloured([f"{letter}{n}" for n in range(200)]) for letter in "ab"]
    union = class_union.of([("main", "first", many[0]), ("b", "second", many[1])])
    for name, classes in (("A.pth", vspw.classes()), ("B.pth", union), ("C.safetensors", union)):
        checkpoint_file.write(tmp_path / name, TENSORS, "state_dict", classes)
        assert checkpoint_file.read(tmp_path / name).classes.names == classes.names
    assert checkpoint_file.read(tmp_path / "A.pth").classes is vspw.classes()
    with pytest.raises(UserError, match="has 401 classes, more than masks can hold, .* Take it from the workdir"):
        trained.shown_part(checkpoint_file.read(tmp_path / "B.pth").classes, None, "data")


@pytest.mark.parametrize(("name", "naming", "are_known", "named"), [
    ("A.pth", "mmseg", True, True),
    ("A.pth", "mmseg", False, False),
    ("A.pth", "unilm", True, False),
    ("A.safetensors", "mmseg", True, True),
])  # fmt: skip
def test_an_export_names_classes_that_are_known_and_predicts_with_them(
    name, naming, are_known, named, tmp_path, monkeypatch
):
    config = tiny_recipe(num_classes=3)
    graphdef, params, model_state = nnx.split(drawn(config.model), nnx.Param, ...)
    weights = {"params": nnx.to_pure_dict(params), "model_state": nnx.to_pure_dict(model_state)}
    monkeypatch.setattr(main.trained, "weights", lambda *_: Trained(graphdef, weights, 1, OWN, are_known=are_known))
    for flag, value in (("_OUTPUT", str(tmp_path / name)), ("_NAMING", naming)):
        monkeypatch.setattr(main, flag, types.SimpleNamespace(value=value))
    monkeypatch.setitem(main.unnamed.BY_NUMBER, 3, main.unnamed.BY_NUMBER[171])  # As if these had so many.
    [said] = main.run_export(config, tmp_path / "run")
    assert ("its 3 classes are named in it" in said) == named
    assert ("its 3 classes; read again, they are named as COCO-Stuff's, which are as many" in said) != named
    monkeypatch.undo()
    if naming == "unilm":
        assert checkpoint_file.read(tmp_path / name).classes is None
        return
    config.init_from = str(tmp_path / name)
    found = trained.weights(config, tmp_path / "run", main.make_mesh(devices=jax.devices()[:1]))
    assert found.are_known == named
    assert found.classes.names == (OWN.names if named else ("class 0", "class 1", "class 2"))


def described(folder, dataset, classes):
    """Records as far as their metadata tells."""
    folder.mkdir()
    metadata = label_maps.to_metadata(label_maps.own(dataset, classes, range(len(classes)), (255,)))
    (folder / "metadata.json").write_text(json.dumps({**metadata, "videos": {}, "max_classes": {}, "fingerprint": {}}))
    (folder / "dataset_info.json").write_text("{}")
    return str(folder)


def test_an_export_of_several_data_sets_is_scored_by_the_classes_of_one(tmp_path):
    """Whatever their order, where the recipe names them all; else it is refused, for the numbers would be others."""
    sets = {"streets": class_list.coloured(["road", "wall"]), "houses": class_list.coloured(["wall"])}
    union = class_union.of((name, name, classes) for name, classes in sets.items())
    config = tiny_recipe(num_classes=3)
    convert.save_torch(drawn(config.model), tmp_path / "A.pth", classes=union)
    config.init_from, config.data.classes = str(tmp_path / "A.pth"), "union"
    places = {name: described(tmp_path / name, name, classes) for name, classes in sets.items()}
    config.data.records, config.data.mixture.b = places["houses"], ConfigDict({**MEMBER, "records": places["streets"]})
    predictor = trained.predictor(config, tmp_path / "run", scored=run_classes.of_records(config))
    assert predictor.classes.names == ("wall",) and predictor._outputs.tolist() == [2]
    del config.data.mixture.b
    for mixed in ("union", "main"):
        config.data.classes = mixed
        with pytest.raises(UserError, match="tells apart 3 classes .*houses has 1 others"):
            trained.predictor(config, tmp_path / "run", scored=run_classes.of_records(config))
