"""Sizes of recipes that are named after data sets: they learn these data sets' own classes, all of several ones."""

import pathlib
import runpy

import numpy as np
import pytest
from PIL import Image

from configs import mdp
from configs.parts import targets
from data_prep import ade20k, cityscapes, coco_stuff, pascal_voc
from tests.inputs import frames
from vspw_jax.checkpoints import run_classes
from vspw_jax.data import mixture
from vspw_jax.inference import sliding_window
from vspw_jax.training import checks

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SIZE = (64, 48)
"""Width and height of the images."""
STEM = "aachen_000000_000019"
LAYOUTS = {
    "ade20k": (
        ade20k.convert,
        ("images/training/a.jpg", "annotations/training/a.png"),
        (0, 3, 150),
    ),
    "coco_stuff": (
        coco_stuff.convert,
        ("images/train2017/a.jpg", "annotations/train2017/a.png"),
        (0, 181, 255),
    ),
    "voc": (
        pascal_voc.convert,
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        (0, 20, 255),
    ),
    "cityscapes": (
        cityscapes.convert,
        (f"leftImg8bit/train/aachen/{STEM}_leftImg8bit.png", f"gtFine/train/aachen/{STEM}_gtFine_labelIds.png"),
        (0, 7, 33),
    ),
}
"""By data set: the converter, the files of an image and its mask, and the mask's values."""
TESTED_AT = {
    "ade20k": ((512, 683), (512, 704)),
    "coco_stuff": ((480, 640), (512, 704)),
    "voc": ((375, 500), (512, 704)),
    "cityscapes": ((1024, 2048), (1024, 2048)),
}
"""By size: a frame, and what mmsegmentation's test makes of it, up to multiples of 32; height and width."""
CLASSES = {"ade20k": 150, "coco_stuff": 171, "voc": 21, "cityscapes": 19, "voc_ade20k": 171, "voc_ade20k_coco": 343}
"""By size, how many outputs a network has; of more than 255 one is void's."""
CONVOLUTIONS, TRANSFORMERS = ("deeplabv3", "hrnet", "ocrnet"), ("upernet_swin",)
PNE = [f"{name}{loss}" for name in (*CONVOLUTIONS, *TRANSFORMERS) for loss in ("", "_pne")]
TARGETS = [("mdp_finetune", size) for size in targets.MDP] + [(name, size) for name in PNE for size in targets.PNE]
"""Recipes and their sizes for data sets."""
TABLE_1 = {
    "cityscapes": (40_000, 0.01, 8, 0.0005),
    "coco_stuff": (60_000, 0.001, 16, 0.0005),
    "ade20k": (160_000, 0.01, 16, 0.0005),
}
"""Of paper 004: training iterations, learning rate, batch size, weight decay rate."""
CROPS = {"full": (512, 512), "cityscapes": (512, 1024), "coco_stuff": (512, 512), "ade20k": (512, 512)}
"""Of mmsegmentation, height and width; the paper states none."""


def recipe_at(name, size):
    return runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](size)


@pytest.fixture
def records_of(tmp_path):
    """records_of(data set): records of a drawn image of it."""

    def run(dataset):
        convert, (image, mask), values = LAYOUTS[dataset]
        folder = tmp_path / dataset
        for name in (image, mask):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        frames.picture(0, SIZE).save(folder / "source" / image)
        Image.fromarray(np.resize(np.array(values, np.uint8), SIZE[::-1])).save(folder / "source" / mask)
        if dataset == "voc":
            (folder / "source" / "ImageSets" / "Segmentation").mkdir(parents=True)
            (folder / "source" / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
        convert(folder / "source", folder / "records")
        return str(folder / "records")

    return run


@pytest.mark.parametrize(("recipe", "size"), TARGETS)
def test_a_data_sets_size_learns_its_own_classes(recipe, size, records_of, tmp_path):
    config = recipe_at(recipe, size).lock()
    checks.check_recipe(config)
    config.data.update(records=records_of(size), eval_split="train")  # The only one.
    known = run_classes.of_run(config, tmp_path / "run", trains=True)
    run_classes.adopt(config, known, is_stated=False)
    (member,) = checks.check(config)
    assert config.model.num_classes == len(member.classes) == CLASSES[size]
    assert member.frames.highest_class == CLASSES[size] - 1


@pytest.mark.parametrize(("recipe", "size"), TARGETS)
def test_a_frame_is_scored_at_the_size_of_the_published_test(recipe, size):
    config = recipe_at(recipe, size)
    frame, wanted = TESTED_AT[size]
    (scale,) = config.evaluate.scales
    assert sliding_window.input_size(*frame, tuple(config.model.image_size), scale) == wanted


@pytest.mark.parametrize("size", TABLE_1)
@pytest.mark.parametrize("recipe", PNE)
def test_paper_004s_recipes_have_its_settings(recipe, size):
    """A Swin learns by AdamW, whose rate the paper does not state."""
    config, full = recipe_at(recipe, size), recipe_at(recipe, "full")
    iterations, rate, batch, decay = TABLE_1[size]
    assert (config.train.steps, config.train.epochs, config.train.batch) == (iterations, 0, batch)
    if recipe.startswith(TRANSFORMERS):
        assert config.optimizer == full.optimizer and config.optimizer.name == "adamw"
    else:
        assert config.optimizer.name == "sgd" and config.optimizer.momentum == 0.9
        assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (rate, decay)
        assert config.schedule.power == 0.9
    assert ("pne" in config.loss) == recipe.endswith("_pne")


@pytest.mark.parametrize("size", CROPS)
@pytest.mark.parametrize("recipe", PNE)
def test_paper_004s_recipes_have_its_networks(recipe, size):
    """Crops, the stride of the dilated ResNet (table 5), and the loss behind the bottleneck (sections 3.3, 4.2.2)."""
    config = recipe_at(recipe, size)
    assert tuple(config.model.image_size) == CROPS[size]
    assert config.model.num_classes == 124  # VSPW's; those of other records take their place at the start of a run.
    if recipe.startswith("deeplabv3"):
        assert config.model.encoder.output_stride == 8
    if recipe.endswith("_pne"):
        projection, pne = config.model.projection, config.loss.pne
        assert projection.input == "decoder"
        assert (projection.hidden, projection.dim) == (512, 256)  # Released: of Cityscapes.
        assert (pne.weight, pne.temperature, pne.form) == (1.3, 1.0, "paper")  # Table 8; equations 8 and 9.


@pytest.mark.parametrize("recipe", ["mdp_finetune", *PNE])
def test_the_full_size_is_ade20ks_for_vspw(recipe):
    full, ade20k = recipe_at(recipe, "full"), recipe_at(recipe, "ade20k")
    ade20k.data.update(records="data/vspw/records", classes="main")
    assert ade20k.to_dict() == full.to_dict()


@pytest.mark.parametrize("size", mdp.BESIDE_VOC)
def test_a_pretraining_on_several_data_sets_learns_the_classes_of_all(size, records_of, tmp_path):
    config = mdp.get_config(size).lock()
    checks.check_recipe(config)
    config.data.records = records_of("voc")
    for name, member in config.data.mixture.items():
        assert member.records == f"data/{name}/records"
        member.records = records_of(name)
    run_classes.adopt(config, run_classes.of_run(config, tmp_path / "run", trains=True), is_stated=False)
    members = checks.check(config)
    assert [member.name for member in members] == ["main", *sorted(mdp.BESIDE_VOC[size])]
    assert {config.model.num_classes, *(len(member.classes) for member in members)} == {CLASSES[size]}
    assert mixture.clips_of_epoch(members, num_frames=1) == len(members)  # Each image once.
