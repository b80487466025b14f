"""A checkpoint predicts with no recipe: its network, its classes and their names come off the file."""

import csv
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from configs import released
from tests.inputs import torch_zips
from tests.interop.conftest import (
    drawn,
    tiny_hrnet,
    tiny_mask2former,
    tiny_ocrnet,
    tiny_resnet,
    tiny_segformer,
    tiny_swin,
    tiny_upernet,
    written,
)
from vspw_jax.classes import class_list, vspw
from vspw_jax.console.errors import UserError
from vspw_jax.interop import checkpoint_file, convert, recipe_of_file, stored_classes, stored_normalisation

NAMES = tuple(f"thing {number}" for number in range(9))
PALETTE = [[number, 10 * number, 255] for number in range(9)]


CONTENTS = {
    "version 1": {"meta": {"dataset_meta": {"classes": NAMES, "palette": PALETTE}}},
    "version 0": {"meta": {"CLASSES": list(NAMES), "PALETTE": PALETTE}},
    "no colours": {"meta": {"CLASSES": NAMES, "PALETTE": PALETTE[:4]}},
    "no names": {"meta": {"CLASSES": None, "epoch": 3}},
    "names that are none": {"meta": {"CLASSES": (1, 2)}},
}
"""What mmsegmentation keeps beside the tensors."""


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    """A file of a small Swin with Mask2Former of 9 classes."""
    path = tmp_path_factory.mktemp("file") / "swin.safetensors"
    convert.save_torch(drawn(tiny_mask2former(tiny_swin())), path, "hugging_face_mask2former")
    return path


def predict(command_line, folder, file, size):
    """What the program says of a video of two frames of (height, width) `size`, to folder/out."""
    (folder / "video").mkdir()
    for number in range(2):
        frame = np.random.default_rng(number).integers(0, 255, (*size, 3)).astype(np.uint8)
        Image.fromarray(frame).save(folder / "video" / f"{number}.png")
    return command_line(
        "--mode=predict",
        f"--input={folder / 'video'}",
        f"--output={folder / 'out'}",
        f"--workdir={folder / 'run'}",
        f"--config.init_from={file}",
        f"--config.model.image_size={size}",
        f"--config.evaluate.stride={size}",
        "--config.evaluate.batch=1",
    )


def write_names(folder):
    """A config.json of Hugging Face's with the names of the classes."""
    (folder / "config.json").write_text(json.dumps({"id2label": {str(n): name for n, name in enumerate(NAMES)}}))


def palette_names(folder):
    with (folder / "out" / "palette.csv").open(newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


def test_a_file_predicts_with_its_own_network_and_names(swin, command_line, tmp_path):
    write_names(swin.parent)
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (swin.parent / "preprocessor_config.json").write_text(json.dumps(halves))
    status, printed, said = predict(command_line, tmp_path, swin, (32, 48))
    assert status == 0, said
    assert "holds a network of swin and mask2former with 9 classes" in printed and "named by the file" in printed
    assert "normalised by mean 127.5, 127.5, 127.5" in printed
    assert palette_names(tmp_path) == list(NAMES)
    with Image.open(tmp_path / "out" / "masks" / "0.png") as mask:
        assert mask.size == (48, 32) and np.asarray(mask).max() < 9
    assert (tmp_path / "out" / "overlay.mp4").stat().st_size > 0


def of_classes(num_classes, config):
    config.num_classes = num_classes
    return config


LAYOUTS = {
    ("nvlabs_segformer", "mit and segformer"): (of_classes(150, tiny_segformer()), "wall"),
    ("mmseg_1", "beit and upernet"): (of_classes(171, tiny_upernet()), "person"),
    ("mmseg_1", "swin and mask2former"): (of_classes(150, tiny_mask2former(tiny_swin())), "wall"),
    ("mmseg", "hrnet and ocrnet"): (of_classes(9, tiny_ocrnet()), "version 1"),
    ("mmseg", "resnet and deeplabv3"): (of_classes(9, tiny_resnet("mmseg")), "version 0"),
    ("mmseg", "mit and segformer"): (of_classes(19, tiny_segformer("mmseg")), "road"),
    ("detectron2", "resnet and mask2former"): (of_classes(19, tiny_mask2former(tiny_resnet("torchvision"))), "road"),
    ("detectron2", "swin and mask2former"): (of_classes(150, tiny_mask2former(tiny_swin())), "wall"),
    ("hugging_face_backbone_upernet", "swin and upernet"): (of_classes(150, tiny_swin()), "wall"),
    ("hugging_face_segformer", "mit and segformer"): (of_classes(9, tiny_segformer()), "config.json"),
    ("torchvision", "resnet and deeplabv3"): (of_classes(21, tiny_resnet("torchvision")), "background"),
    ("hrnet", "hrnet and fcn"): (of_classes(19, tiny_hrnet("hrnet")), "road"),
}
"""By a file's naming and what is said of its network: the network, and its first class or what names its classes."""


@pytest.mark.parametrize(("naming", "network"), LAYOUTS)
def test_files_of_other_codes_predict_alike(naming, network, command_line, tmp_path):
    config, names_from = LAYOUTS[naming, network]
    path = tmp_path / "A.pth"
    convert.save_torch(drawn(config), path, naming)
    if naming == "detectron2":
        arrays = {"model": written(path)}
        path = tmp_path / "A.pkl"
        path.write_bytes(pickle.dumps(arrays, 4))
    elif names_from in CONTENTS:
        torch_zips.write(path, {"state_dict": written(path)} | CONTENTS[names_from])
    elif names_from == "config.json":
        write_names(tmp_path)
    status, printed, said = predict(command_line, tmp_path, path, (32, 32))
    assert status == 0, said
    assert f"holds a network of {network} with {config.num_classes} classes" in printed
    names = palette_names(tmp_path)
    assert len(names) == config.num_classes
    assert names == list(NAMES) if config.num_classes == len(NAMES) else names[0] == names_from
    for number in range(2):
        with Image.open(tmp_path / "out" / "masks" / f"{number}.png") as mask:
            assert mask.size == (32, 32) and np.asarray(mask).max() < config.num_classes


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        (["--mode=predict", "--config.init_from=A"], True),
        (["--config.init_from", "A"], True),
        (["--config=configs/nce.py", "--config.init_from=A"], False),
        (["--config", "configs/nce.py", "--config.init_from=A"], False),
        (["--mode=predict"], False),
    ],
)
def test_the_recipe_is_added_where_a_file_is_named_and_none(arguments, added):
    argv = recipe_of_file.added(["main.py", *arguments])
    assert any(recipe_of_file.is_named(word.removeprefix("--config=")) for word in argv) == added
    assert [word for word in argv[1:] if not recipe_of_file.is_named(word.removeprefix("--config="))] == arguments


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode=train"], "--mode=train needs a recipe, such as --config=configs/upernet_swin.py"),
        (["--mode=predict"], "Without a recipe there is no video to predict: name one with --input=VIDEO"),
        (["--mode=predict", "--input=x.mp4", "--config.model.widht=3"], "has no field 'model.widht'"),
    ],
)
def test_what_a_file_alone_does_not_tell_is_asked_for(flags, message, command_line):
    status, _, said = command_line("--config.init_from=A.pth", *flags)
    assert status == 2 and message in said


@pytest.mark.parametrize("case", CONTENTS)
def test_names_and_colours_beside_the_tensors(case, tmp_path):
    tensors = {"state_dict": {"backbone.stages.0.blocks.0.a": np.zeros(2, np.float32)}}
    path = torch_zips.write(tmp_path / "A.pth", tensors | CONTENTS[case])
    found = checkpoint_file.read(path).classes
    if "names" in case:
        assert found is None
        return
    assert found.names == NAMES
    wanted = found.colours if case == "no colours" else tuple(map(tuple, PALETTE))
    assert found.file_colours == wanted and len(set(found.colours)) == 9


@pytest.mark.parametrize(
    ("num_classes", "first", "said"),
    [
        (9, "thing 0", "named by the file"),
        (124, vspw.classes().names[0], "named as VSPW's"),
        (150, "wall", "named as ADE20K's"),
        (171, "person", "named as COCO-Stuff's"),
        (19, "road", "named as Cityscapes's, which are as many"),
        (21, "background", "named as Pascal VOC's, which are as many"),
        (20, "class 0", "not named"),
    ],
)
def test_names_of_another_number_of_classes_are_not_taken(num_classes, first, said):
    classes, words = stored_classes.chosen(class_list.coloured(NAMES), num_classes)
    assert len(classes.names) == num_classes and classes.names[0] == first and words.startswith(said)


@pytest.mark.parametrize("text", ["", "[]", '{"id2label": 3}', '{"id2label": {"1": "a"}}', '{"model.encoder.dim": 3}'])
def test_another_config_beside_a_file_names_no_classes(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    assert stored_classes.in_config(tmp_path / "A.safetensors") is None


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, ((127.5,) * 3, (63.75,) * 3)),
        ({"do_normalize": False}, ((0.0,) * 3, (255.0,) * 3)),
        ({"do_normalize": False, "do_rescale": False}, ((0.0,) * 3, (1.0,) * 3)),
        ({"image_mean": [0.485, 0.456, 0.40600001], "image_std": [0.229, 0.224, 0.225]}, None),
        ({"image_mean": [0.5] * 3, "image_std": [0.0] * 3}, None),
        ({"image_mean": [0.5], "image_std": [0.5]}, None),
        (["image_mean"], None),
    ],
    ids=["halves", "scaled alone", "levels", "ImageNet's", "zero", "one channel", "a list"],
)
def test_what_images_are_normalised_by(options, wanted, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(options))
    assert stored_normalisation.in_preprocessor(tmp_path / "A.safetensors") == wanted


def test_a_part_of_a_network_is_no_network(tmp_path):
    config = released.get_config()
    config.init_from = str(torch_zips.write(tmp_path / "A.pth", {"layers.0.blocks.0.a": np.zeros(2, np.float32)}))
    with pytest.raises(UserError, match="holds a part of a network"):
        recipe_of_file.fitted(config, {})
