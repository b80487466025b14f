"""Which classes a run has, and that its recipe follows."""

import json

import pytest

from configs import upernet
from vspw_jax.checkpoints import run_classes
from vspw_jax.checkpoints.run_classes import Known
from vspw_jax.classes import label_maps, vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError

OWN = ClassList(("road", "car"), ((1, 2, 3), (4, 5, 6)), ((1, 2, 3), (7, 8, 9)))


@pytest.fixture
def config(tmp_path):
    recipe = upernet.get_config("demo")
    recipe.data.records = str(tmp_path / "none")
    return recipe


@pytest.fixture
def own_records(tmp_path):
    """Converted data of OWN, as far as its metadata tells."""
    (tmp_path / "own").mkdir()
    metadata = label_maps.to_metadata(label_maps.own("folder", OWN, (0, 1), (255,)))
    text = json.dumps({**metadata, "videos": {}, "max_classes": {}, "fingerprint": {}})
    (tmp_path / "own" / "metadata.json").write_text(text)
    (tmp_path / "own" / "dataset_info.json").write_text("{}")
    return str(tmp_path / "own")


def begun(workdir, classes):
    """A workdir in which a run has begun."""
    (workdir / "config.json").write_text("{}")
    run_classes.note(workdir, classes)
    return workdir


def test_without_a_run_they_are_the_datas_or_vspws(config, own_records, tmp_path):
    assert run_classes.of_run(config, tmp_path) == (vspw.classes(), "the recipe")
    run_classes.note(tmp_path, ClassList(("left", "behind"), OWN.colours, OWN.colours))  # By a run that was deleted.
    config.data.records = own_records
    assert run_classes.of_run(config, tmp_path) == (OWN, own_records)


def test_a_workdir_keeps_its_own_and_none_are_vspws(config, own_records, tmp_path):
    assert run_classes.of_run(config, begun(tmp_path, OWN)) == (OWN, str(tmp_path))
    config.data.records = own_records
    assert run_classes.of_run(config, begun(tmp_path, vspw.classes())) == (vspw.classes(), str(tmp_path))
    assert not (tmp_path / run_classes.FILE).exists()


def test_a_run_does_not_go_on_with_data_of_other_classes(config, own_records, tmp_path):
    config.data.records = own_records
    run_classes.of_run(config, begun(tmp_path, OWN), trains=True)
    with pytest.raises(UserError, match=r"tells apart 124 classes .* 2 others \(road, car\). Choose another --workdir"):
        run_classes.of_run(config, begun(tmp_path, vspw.classes()), trains=True)


@pytest.mark.parametrize("text", ["", "{}", '{"names": ["a", "a"], "colours": [], "file_colours": []}'])
def test_a_damaged_file_is_said(config, tmp_path, text):
    (begun(tmp_path, OWN) / run_classes.FILE).write_text(text)
    with pytest.raises(UserError, match=r"classes.json is damaged .* Delete the workdir, or bring the file back"):
        run_classes.of_run(config, tmp_path)


def test_a_recipe_gets_as_many_classes_as_its_data(config):
    config.lock()
    run_classes.adopt(config, Known(vspw.classes(), "data"), is_stated=False)
    assert config.model.num_classes == 124
    run_classes.adopt(config, Known(OWN, "data"), is_stated=False)
    assert config.model.num_classes == 2 and config.is_locked
    run_classes.adopt(config, Known(OWN, "data"), is_stated=True)


def test_another_number_that_the_user_asks_for_is_refused(config):
    with pytest.raises(UserError, match=r"num_classes=124, but data has 2 classes: road, car. Leave the flag out"):
        run_classes.adopt(config, Known(OWN, "data"), is_stated=True)
    run_classes.adopt(config, Known(vspw.classes(), "data"), is_stated=True)
