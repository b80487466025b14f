"""Which classes a run has, and that its recipe follows."""

import pytest

from configs import upernet
from vspw_jax.checkpoints import run_classes
from vspw_jax.classes import vspw
from vspw_jax.classes.class_list import ClassList
from vspw_jax.console.errors import UserError

OWN = ClassList(("road", "car"), ((1, 2, 3), (4, 5, 6)), ((1, 2, 3), (7, 8, 9)))


@pytest.fixture
def config(tmp_path):
    recipe = upernet.get_config("demo")
    recipe.data.records = str(tmp_path / "none")
    return recipe.lock()


def test_without_data_they_are_vspws_and_a_workdir_keeps_its_own(config, tmp_path):
    assert run_classes.of_run(config, tmp_path) == vspw.classes()
    run_classes.note(tmp_path, OWN)
    assert run_classes.of_run(config, tmp_path) == OWN


@pytest.mark.parametrize("text", ["", "{}", '{"names": ["a", "a"], "colours": [], "file_colours": []}'])
def test_a_damaged_file_is_said(config, tmp_path, text):
    (tmp_path / run_classes.FILE).write_text(text)
    with pytest.raises(UserError, match=r"classes.json is damaged .* Delete it, and name the data"):
        run_classes.of_run(config, tmp_path)


def test_a_recipe_gets_as_many_classes_as_its_data(config):
    run_classes.adopt(config, vspw.classes(), is_stated=False)
    assert config.model.num_classes == 124
    run_classes.adopt(config, OWN, is_stated=False)
    assert config.model.num_classes == 2 and config.is_locked
    run_classes.adopt(config, OWN, is_stated=True)


def test_another_number_that_the_user_asks_for_is_refused(config):
    with pytest.raises(UserError, match=r"num_classes=124, but the data has 2 classes: road, car. Leave the flag out"):
        run_classes.adopt(config, OWN, is_stated=True)
    run_classes.adopt(config, vspw.classes(), is_stated=True)


def test_a_network_is_scored_on_its_own_classes_alone():
    run_classes.check_same(OWN, OWN, "data")
    with pytest.raises(UserError, match=r"The network tells 2 classes \(road, car\), data has 124 others"):
        run_classes.check_same(OWN, vspw.classes(), "data")
