"""Files of detectron2's Mask2Former: its names, of both versions, and its pickles of arrays."""

import pickle
import re

import numpy as np
import pytest

from tests.interop.conftest import assert_reads, drawn, tiny_mask2former, tiny_resnet, tiny_swin, variables
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, namings
from vspw_jax.interop.stored_tensors import NewTensor


def resnet():
    return tiny_mask2former(tiny_resnet("torchvision"))


NETWORKS = {"swin": tiny_mask2former(tiny_swin()), "resnet": resnet()}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """(config.model, network, the file that it was exported to)."""
    config = NETWORKS[request.param]
    model, path = drawn(config), tmp_path_factory.mktemp("detectron2") / "A.pth"
    convert.save_torch(model, path, "detectron2")
    return config, model, path


def arrays_of(path):
    return {name: tensor.read() for name, tensor in checkpoint_file.read(path).tensors.items()}


@pytest.mark.parametrize("trained_norms", [False, True], ids=["frozen", "SyncBN"])
def test_the_zoos_pickles(trained_norms, exported, tmp_path):
    """Names without the pixel decoder's part, queries of the first version, the loss's weights beside; and back.

    The ResNets of Cityscapes were trained with SyncBN, which counts batches.
    """
    config, model, path = exported
    arrays = arrays_of(path)
    assert not any(".pixel_decoder." in name or name.endswith("num_batches_tracked") for name in arrays)
    content = {name.replace("query_feat", "static_query"): x for name, x in arrays.items()}
    norms = [name.removesuffix("running_var") for name in arrays if trained_norms and name.endswith("running_var")]
    content |= {f"{norm}num_batches_tracked": np.array(90_000 + n) for n, norm in enumerate(norms)}
    content |= {"criterion.empty_weight": np.ones(10, np.float32), "pixel_mean": np.ones((3, 1, 1), np.float32)}
    with (tmp_path / "A.pkl").open("wb") as file:
        pickle.dump({"model": content, "__author__": "third_party"}, file, 4)
    assert_reads(tmp_path / "A.pkl", config)
    loaded, _ = convert.model_from_torch(tmp_path / "A.pkl")
    found = variables(loaded)
    counts = {int(count) for name, array in found.items() if name.endswith("/count") for count in array.ravel()}
    assert counts - {0} == {90_000 + n for n in range(len(norms))}
    for name, array in variables(model).items():
        if not name.endswith("/count"):  # Frozen norms have none.
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    convert.save_torch(loaded, tmp_path / "B.pth", "detectron2")
    again = arrays_of(tmp_path / "B.pth")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], x) for name, x in arrays.items())


def test_what_its_own_trainer_saves(exported, tmp_path):
    """With the pixel decoder's part in the names."""
    config, _, path = exported
    own = r"^sem_seg_head\.(?!predictor\.)"
    tensors = {
        re.sub(own, "sem_seg_head.pixel_decoder.", name): NewTensor(x.shape, x.dtype, lambda x=x: x)
        for name, x in arrays_of(path).items()
    }
    checkpoint_file.write(tmp_path / "A.pth", tensors, "model")
    assert_reads(tmp_path / "A.pth", config)


def test_a_resnet_of_the_zoo_starts_an_encoder(tmp_path):
    """detectron2's R-50.pkl has torchvision's classifier under the stem."""
    model = drawn(NETWORKS["resnet"])
    convert.save_torch(model, tmp_path / "A.pth", "detectron2")
    arrays = {
        name.removeprefix("backbone."): x for name, x in arrays_of(tmp_path / "A.pth").items() if "backbone" in name
    }
    content = {"model": arrays | {"stem.fc.weight": np.zeros((4, 3), np.float32)}, "__author__": "torchvision"}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(content, 4))
    loaded = variables(convert.load_torch(drawn(NETWORKS["resnet"], seed=1), tmp_path / "R.pkl").encoder)
    for name, array in variables(model.encoder).items():
        if not name.endswith("/count"):
            np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_a_deep_stem_has_no_names(tmp_path):
    with pytest.raises(UserError, match="stem='deep' has no names in files of the kind detectron2"):
        config = resnet()
        config.encoder.stem = "deep"
        namings.NAMINGS["detectron2"].rows(config, ())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(900, dtype=np.float64).reshape(30, 30)),
        np.arange(900, dtype=np.int64).reshape(30, 30).T,
        np.float16([[1.5]] * 999),
        np.zeros((0, 3), np.float32),
        np.float32(2.5) + np.zeros((), np.float32),
        np.array([True, False]),
    ],
    ids=["small", "by columns", "a view", "half", "empty", "scalar", "bool"],
)
def test_arrays_are_read(array, tmp_path):
    array = np.asarray(array)
    content = {"model": {"backbone.a": array, "b": array, "c": "x" * 5000}}
    (tmp_path / "A.pkl").write_bytes(pickle.dumps(content, 3))
    file = checkpoint_file.read(tmp_path / "A.pkl")
    assert file.notes == ("not read, as they are no tensors: c (str)",)
    for tensor in file.tensors.values():
        np.testing.assert_array_equal(tensor.read(), array)
        assert tensor.read().dtype == array.dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({"model": {"a": np.zeros(9000, np.float32)}}, 4)[:-900], "A.pkl is damaged, cut short"),
        (
            pickle.dumps({"model": {"a": np.zeros(9000, np.float32)}}, 5),
            "protocol 5 are not read: save it with protocol=4",
        ),
        (pickle.dumps({"model": {"a": np.zeros(3, ">f4"), "b": np.array(["x"])}}, 4), "holds no tensors by name"),
        (pickle.dumps([1, 2], 4), "holds no tensors by name: found list"),
    ],
    ids=["cut", "protocol 5", "big-endian", "a list"],
)
def test_what_is_not_read_is_said(data, message, tmp_path):
    (tmp_path / "A.pkl").write_bytes(data)
    with pytest.raises(UserError, match=message):
        checkpoint_file.read(tmp_path / "A.pkl")
