"""A workdir has one config and one set of data, whatever version of the program wrote what it says of them."""

import importlib
import json
import pathlib

import pytest

from configs import nce
from tests.inputs import workdirs
from vspw_jax.checkpoints import run_identity
from vspw_jax.console.errors import UserError
from vspw_jax.console.recipe_file import flatten

BEFORE_TASKS = pathlib.Path(__file__).parent / "before_tasks"
"""What the recipes' demos wrote as config.json before there were tasks, schedules and optimizers by name."""

DATA = {"main": "vspw train, 50 frames, fingerprint 3f"}


def test_the_same_config_claims_a_workdir_again(tmp_path):
    for _ in range(2):
        run_identity.claim_workdir(tmp_path / "run", nce.get_config("demo"), DATA)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train.batch"] == 4


def test_another_config_is_refused_and_what_differs_is_named(tmp_path):
    config = nce.get_config("demo")
    run_identity.claim_workdir(tmp_path, config, DATA)
    rate = config.optimizer.learning_rate
    config.train.batch, config.optimizer.learning_rate = 8, 0.5
    with pytest.raises(UserError) as error:
        run_identity.claim_workdir(tmp_path, config, DATA)
    lines = str(error.value).splitlines()
    assert lines[1:3] == [f"  optimizer.learning_rate: {rate} there, 0.5 now", "  train.batch: 4 there, 8 now"]
    assert "--workdir=DIR" in lines[3] and len(lines) == 4


def test_other_data_is_refused_whatever_its_place_and_so_is_more_or_less_of_it(tmp_path):
    config = nce.get_config("demo")
    run_identity.claim_workdir(tmp_path, config, DATA)
    config.data.records = "elsewhere"
    run_identity.claim_workdir(tmp_path, config, DATA)
    other = {"main": "vspw train, 48 frames, fingerprint a2"}
    with pytest.raises(UserError) as error:
        run_identity.claim_workdir(tmp_path, config, other)
    lines = str(error.value).splitlines()
    assert lines[1] == f"  data set 'main': {DATA['main']} there, {other['main']} now"
    assert "--workdir=DIR" in lines[2] and "--config.data.records=DIR" in lines[3] and "--mode=evaluate" in lines[3]
    with pytest.raises(UserError, match="data set 'coco': None there, 3 images now"):
        run_identity.claim_workdir(tmp_path, config, {**DATA, "coco": "3 images"})


def test_a_trained_model_takes_other_data_but_no_other_network(tmp_path):
    config = nce.get_config("demo")
    run_identity.check_workdir(tmp_path, config)
    run_identity.claim_workdir(tmp_path, config, DATA)
    config.data.update(records="elsewhere", train_split="val", epoch="frame")
    run_identity.check_workdir(tmp_path, config)
    config.model.num_classes = 7
    with pytest.raises(UserError, match="model.num_classes: 124 there, 7 now"):
        run_identity.check_workdir(tmp_path, config)


def test_fields_of_the_machine_may_differ(tmp_path):
    config = nce.get_config("demo")
    run_identity.claim_workdir(tmp_path, config, DATA)
    config.run.update(log_every=1, keep=9)
    config.data.update(workers=2, threads=7, prefetch=1, eval_split="test")
    config.model.remat = "full"
    config.evaluate.batch = 1
    run_identity.claim_workdir(tmp_path, config, DATA)


@pytest.mark.parametrize("damage", workdirs.DAMAGED_JSON.values(), ids=workdirs.DAMAGED_JSON.keys())
def test_a_damaged_config_file_is_named(tmp_path, damage):
    run_identity.claim_workdir(tmp_path, nce.get_config("demo"), DATA)
    path = tmp_path / "config.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match="config.json is damaged.*\n.*delete that file"):
        run_identity.claim_workdir(tmp_path, nce.get_config("demo"), DATA)


def test_a_claim_cut_short_leaves_no_config_file(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run_identity.claim_workdir(tmp_path, nce.get_config("demo"), DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_one_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: .*--workdir=DIR"):
        run_identity.claim_workdir(tmp_path / "file" / "run", nce.get_config("demo"), DATA)


def test_a_mask2former_from_before_its_queries_had_a_spread_is_known(tmp_path):
    config = nce.get_config("demo")
    run_identity.claim_workdir(tmp_path, config, {})
    path = tmp_path / "config.json"
    then = json.loads(path.read_text())
    assert then.pop("model.decoder.query_std") == 1.0
    path.write_text(json.dumps(then))
    run_identity.claim_workdir(tmp_path, config, {})
    config.model.decoder.query_std = 0.02
    with pytest.raises(UserError, match="query_std: 1.0 there, 0.02 now"):
        run_identity.claim_workdir(tmp_path, config, {})


@pytest.mark.parametrize(
    ("recipe", "decoder", "since"),
    [
        ("memory_a", {"memory_space": "pyramid"}, ("memory_space",)),
        ("memory_b", {"memory_space": "pyramid"}, ("memory_space", "past_frames")),
    ],
)
def test_a_workdir_from_before_a_field_is_known(tmp_path, recipe, decoder, since):
    config = importlib.import_module(f"configs.{recipe}").get_config("demo")
    config.model.decoder.update(decoder)
    run_identity.claim_workdir(tmp_path, config, {})
    path = tmp_path / "config.json"
    then = json.loads(path.read_text())
    without = {*since, "epochs", "truth_epochs", "memory_start_epoch", "momentum_follows_rate"}
    then = {name: value for name, value in then.items() if name.rpartition(".")[2] not in without}
    path.write_text(json.dumps({**then, "model.decoder.momentum_power": 1.0}))
    run_identity.claim_workdir(tmp_path, config, {})
    config.model.decoder.memory_space = "bottleneck"
    with pytest.raises(UserError, match="memory_space: pyramid there, bottleneck now"):
        run_identity.claim_workdir(tmp_path, config, {})


def test_a_run_without_a_power_is_known(tmp_path):
    config = importlib.import_module("configs.mdp").get_config("demo")
    assert "power" not in config.schedule
    run_identity.claim_workdir(tmp_path, config, {})
    run_identity.claim_workdir(tmp_path, config, {})


def test_a_run_that_was_counted_in_steps_says_how_to_go_on(tmp_path):
    config = importlib.import_module("configs.upernet").get_config()
    config.train.update(steps=42_000, epochs=0)
    run_identity.claim_workdir(tmp_path, config, {})
    config.train.update(steps=42_090, epochs=240)
    with pytest.raises(UserError, match=r"--config.train.epochs=0 --config.train.steps=42000"):
        run_identity.claim_workdir(tmp_path, config, {})


@pytest.mark.parametrize("path", sorted(BEFORE_TASKS.glob("*.json")), ids=lambda path: path.stem)
def test_a_workdir_from_before_tasks_is_known_and_another_one_refused(tmp_path, path):
    config = importlib.import_module(f"configs.{path.stem}").get_config("demo")
    # Demos have had other numbers since; fields that have another name now keep the recipe's value.
    known, then = flatten(config), json.loads(path.read_text())
    numbers = {name: tuple(v) if isinstance(v, list) else v for name, v in then.items() if name in known}
    config.update_from_flattened_dict(numbers)
    (tmp_path / "config.json").write_text(path.read_text())
    run_identity.claim_workdir(tmp_path, config, {})
    config.schedule.warmup_steps = 7
    with pytest.raises(UserError, match="schedule.warmup_steps: 50 there, 7 now"):
        run_identity.claim_workdir(tmp_path, config, {})
