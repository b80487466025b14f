"""Joint training by the command line: two data sets are drawn, converted and read together; the network is left out."""

import json

import pytest

from vspw_jax.training import train_state


@pytest.fixture
def joint_flags(tiny_flags, tmp_path, request):
    """The recipe's demo at its smallest."""
    recipe = request.config.rootpath / "configs" / "multi_dataset.py"
    dropped = ("--config=", "--config.loss.nce", "--config.data.records")
    flags = [f"--config={recipe}:demo", *(flag for flag in tiny_flags if not flag.startswith(dropped))]
    sizes = {"generate": dict(train=2, val=1, frames=4, train_frames=0, height=48, width=64)}
    sizes |= {f"mixture.{name}.generate": dict(train=6, val=3, height=48, width=64) for name in MEMBERS}
    for section, values in sizes.items():
        folder = tmp_path / ("images" if "mixture" in section else "video")
        places = {f"{section}.source": folder / "source", f"{section}.records": folder / "records"}
        places[section.replace("generate", "records")] = folder / "records"
        fields = {f"{section}.{name}": value for name, value in values.items()} | places
        flags += [f"--config.data.{name}={value}" for name, value in fields.items()]
    return [*flags, "--config.run.afterwards=()", "--config.run.picture_every=99", f"--workdir={tmp_path / 'run'}"]


MEMBERS = ("coco_stuff", "coco_stuff_val")


@pytest.fixture
def batches(without_network, monkeypatch):
    """What a step that stands for the network was given."""
    taken = []
    without_network(seen=taken, loss=1.0)
    monkeypatch.setattr(train_state, "restore_state", train_state.new_state)
    return taken


def test_two_data_sets_train_together_and_stay_the_run_s(command_line, joint_flags, batches, tmp_path):
    status, output, errors = command_line(*joint_flags)
    assert status == 0, errors
    assert "main: vspw train, " in output and "coco_stuff_val: coco_stuff val, " in output and "80 %" in output
    assert len(batches) == 6 and all(batch["image_BTHWC"].shape == (8, 1, 32, 32, 3) for batch in batches)
    identity = json.loads((tmp_path / "run" / "config.json").read_text())
    assert identity["data set 'main'"].startswith("vspw train, 8 frames, fingerprint ")
    for name, split in zip(MEMBERS, ("train", "val"), strict=True):
        assert identity[f"data set {name!r}"].startswith(f"coco_stuff {split}, ")

    # Another map and other data are another run; the data's place is not.
    for change, part in (
        ("coco_stuff.fits=('exact',)", "data set 'coco_stuff'"),
        (f"coco_stuff.records={tmp_path / 'video' / 'records'}", "data set 'coco_stuff': coco_stuff train, "),
    ):
        status, output, errors = command_line(*joint_flags, f"--config.data.mixture.{change}")
        assert status == 2 and part in errors and "--workdir=DIR" in errors, errors
    moved = (tmp_path / "images" / "records").rename(tmp_path / "elsewhere")
    places = [f"--config.data.mixture.{name}.records={moved}" for name in MEMBERS]
    status, output, errors = command_line(*joint_flags, *places)
    assert status == 0, errors
