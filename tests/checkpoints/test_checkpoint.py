"""Checkpoints come back as they were, and half-written ones are not taken for whole."""

import gc
import hashlib
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inputs import workdirs
from vspw_jax.checkpoints import checkpoint, manifest
from vspw_jax.console.errors import UserError, no_room


def make_state(seed, step):
    draw = np.random.default_rng(seed).normal
    return {
        "params": {"a": jnp.asarray(draw(size=(40, 50)), jnp.float32), "b": jnp.asarray(draw(size=3), jnp.bfloat16)},
        "model_state": {"mean": jnp.asarray(draw(size=4), jnp.float32)},
        "opt_state": ({"mu": jnp.asarray(draw(size=(40, 50)), jnp.float32)}, ()),
        "step": jnp.asarray(step, jnp.int32),
        "bad_steps": jnp.asarray(seed, jnp.int32),
    }


def like(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def saved(tmp_path):
    """A workdir with checkpoints of steps 2 and 4."""
    with_steps = checkpoint.Checkpoints(tmp_path, keep=3)
    for step in (2, 4):
        with_steps.save(step, make_state(step, step))
    with_steps.close()
    return tmp_path


def test_a_save_that_is_waited_for_is_whole_when_it_returns(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=3, trains=True, in_background=False)
    checkpoints.save(2, make_state(2, 2))
    assert checkpoint.Checkpoints(tmp_path, keep=3).intact_step() == 2
    checkpoints.close()


def test_a_state_comes_back_as_it_was(saved):
    checkpoints = checkpoint.Checkpoints(saved, keep=3)
    assert checkpoints.latest_step() == 4
    state = make_state(4, 4)
    assert_same(checkpoints.restore(like(state)), state)
    weights = {name: state[name] for name in ("params", "model_state")}
    assert_same(checkpoints.restore(like(weights)), weights)


def test_the_oldest_goes(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=2)
    for step in range(1, 5):
        checkpoints.save(step, make_state(step, step))
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "4"]


def test_a_step_is_saved_once(saved):
    checkpoints = checkpoint.Checkpoints(saved, keep=3)
    checkpoints.save(4, make_state(0, 4))
    checkpoints.close()
    assert_same(checkpoint.Checkpoints(saved, keep=3).restore(like(make_state(4, 4))), make_state(4, 4))


def test_a_save_cut_short_is_no_checkpoint(saved):
    """A killed process leaves a folder of another name, whatever is in it, which the next one removes."""
    for step in (5, 6):
        shutil.copytree(saved / "checkpoints" / "4", saved / "checkpoints" / f"{step}.orbax-checkpoint-tmp")
    assert checkpoint.Checkpoints(saved, keep=3).latest_step() == 4
    checkpoints = checkpoint.Checkpoints(saved, keep=3, trains=True)
    assert checkpoints.latest_step() == 4
    checkpoints.save(6, make_state(6, 6))
    checkpoints.close()
    assert sorted(path.name for path in (saved / "checkpoints").iterdir()) == ["2", "4", "6"]
    assert_same(checkpoint.Checkpoints(saved, keep=3).restore(like(make_state(0, 0))), make_state(6, 6))


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def largest(folder):
    return max(files(folder), key=lambda path: path.stat().st_size)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path.relative_to(folder))


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    return "manifest.json: missing"


def lose_the_weights(folder):
    shutil.rmtree(folder / "weights")
    return "weights/_METADATA: missing"


def lose_the_manifest(folder):
    (folder / "manifest.json").unlink()
    return "manifest.json: missing"


def spoil_the_manifest(folder):
    (folder / "manifest.json").write_text('["weights"]')
    return "manifest.json: unreadable"


@pytest.mark.parametrize("damage", [truncate, empty, lose_the_weights, lose_the_manifest, spoil_the_manifest])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(saved, damage, capfd):
    what = damage(saved / "checkpoints" / "4")
    assert_same(checkpoint.Checkpoints(saved, keep=3).restore(like(make_state(2, 2))), make_state(2, 2))
    errors = capfd.readouterr().err
    assert "checkpoints/4 is damaged" in errors and what in errors
    assert (saved / "checkpoints" / "4").is_dir()


def test_a_renamed_checkpoint_is_not_another_step(saved, capfd):
    workdirs.rename_checkpoint(saved, 4, 40)
    assert_same(checkpoint.Checkpoints(saved, keep=3).restore(like(make_state(2, 2))), make_state(2, 2))
    said = "checkpoints/40 is damaged (saved as 4 and renamed since: give the folder its name back)"
    assert said in capfd.readouterr().err
    workdirs.rename_checkpoint(saved, 40, 4)
    assert checkpoint.Checkpoints(saved, keep=3).intact_step() == 4


def test_a_manifest_from_before_it_knew_its_step_is_read(saved):
    folder = saved / "checkpoints" / "4"
    content = json.loads((folder / manifest.FILE).read_text())
    del content["name"]
    content["sha256_of_this_list"] = hashlib.sha256(json.dumps(content["sha256"]).encode()).hexdigest()
    (folder / manifest.FILE).write_text(json.dumps(content))
    assert manifest.damage(folder) == []


def test_one_flipped_bit_in_any_file_is_found_and_so_is_any_lost_file(saved):
    """But for bits of what Orbax notes on the saving, of which nothing is restored, and a file that it adds last."""
    folder, rng = saved / "checkpoints" / "4", np.random.default_rng(0)
    assert manifest.damage(folder) == []
    looked_at = [path for path in files(folder) if path.stat().st_size]
    for path in looked_at:
        whole, name = path.read_bytes(), str(path.relative_to(folder))
        flipped = bytearray(whole)
        bit = rng.integers(8 * len(whole))
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        found = manifest.damage(folder)
        path.unlink()
        lost = manifest.damage(folder)
        if name in manifest.UNREAD:
            assert found == []
        else:
            assert len(found) == 1 and re.match(f"{name}: (not what was written|unreadable)", found[0])
        assert lost == ([] if name == "commit_success.txt" else [f"{name}: missing"])
        path.write_bytes(whole)
    assert manifest.damage(folder) == [] and len(looked_at) > 8


def test_training_sets_a_damaged_checkpoint_aside_and_saves_that_step_anew(saved, capfd):
    truncate(saved / "checkpoints" / "4")
    checkpoints = checkpoint.Checkpoints(saved, keep=2, trains=True)
    checkpoints.set_aside_damaged()
    assert "Going on from step 2" in capfd.readouterr().err
    assert checkpoints.latest_step() == 2 and (saved / "damaged" / "4" / "weights").is_dir()
    for step in (4, 6):
        checkpoints.save(step, make_state(step, step))
    checkpoints.close()
    assert sorted(path.name for path in (saved / "checkpoints").iterdir()) == ["4", "6"]
    checkpoints = checkpoint.Checkpoints(saved, keep=2)
    assert_same(checkpoints.restore(like(make_state(0, 0)), at_most=5), make_state(4, 4))


def test_where_all_are_damaged_nothing_starts_anew_by_itself(saved):
    for step in ("2", "4"):
        truncate(saved / "checkpoints" / step)
    checkpoints = checkpoint.Checkpoints(saved, keep=3, trains=True)
    for use in (checkpoints.set_aside_damaged, lambda: checkpoints.restore(like(make_state(0, 0)))):
        with pytest.raises(UserError, match="Every checkpoint in .*: 2, 4.*\n.*--workdir=DIR"):
            use()
    assert sorted(path.name for path in (saved / "checkpoints").iterdir()) == ["2", "4"]


def test_a_reader_follows_a_run_that_goes_on(saved, capfd):
    """The checkpoint that it would have read is gone."""
    reader = checkpoint.Checkpoints(saved, keep=1)
    assert reader.latest_step() == 4
    trains = checkpoint.Checkpoints(saved, keep=1, trains=True)
    trains.save(6, make_state(6, 6))
    trains.close()
    assert not (saved / "checkpoints" / "4").exists()
    assert_same(reader.restore(like(make_state(0, 0))), make_state(6, 6))
    assert capfd.readouterr().err == ""
    shutil.rmtree(saved / "checkpoints" / "6")
    with pytest.raises(UserError, match="checkpoints/6 was removed while it was read.*same command again"):
        reader.restore(like(make_state(0, 0)))


def test_an_intact_checkpoint_of_another_layout_is_named(saved):
    state = make_state(4, 4)
    state["params"] = {"other": state["params"]["a"]}
    with pytest.raises(UserError, match="checkpoints/4 cannot be read, though .*\n.*another version"):
        checkpoint.Checkpoints(saved, keep=3).restore(like(state))
    gc.collect()


def test_a_failed_save_costs_no_checkpoint(saved, monkeypatch):
    """Rotation takes the old one only when the new one is whole, even where just one is kept."""

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", fail)
    checkpoints = checkpoint.Checkpoints(saved, keep=1, trains=True)
    checkpoints.save(6, make_state(6, 6))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.close()
    assert_same(checkpoint.Checkpoints(saved, keep=1).restore(like(make_state(0, 0))), make_state(4, 4))


def test_room_is_needed_for_what_will_be_saved(tmp_path, monkeypatch):
    checkpoints, state = checkpoint.Checkpoints(tmp_path, keep=2), make_state(0, 0)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = lambda number: monkeypatch.setattr(
        checkpoint.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, number)
    )
    free(3 * size)
    checkpoints.check_room(state, saves=100)
    free(3 * size - 1)
    checkpoints.check_room(state, saves=2)
    with pytest.raises(UserError, match="3 of them need.*\n.*--config.run.keep=1"):
        checkpoints.check_room(state, saves=100)
    free(size - 1)
    with pytest.raises(UserError, match="No room for checkpoints in .*1 of them need"):
        checkpoints.save(2, state)
    assert checkpoints.latest_step() is None


def test_a_full_disk_is_known_by_what_libraries_raise():
    assert no_room(OSError(28, "No space left on device"))
    assert no_room(RuntimeError("write() failed: No space left on device; writing x"))
    wrapped = ValueError("save failed")
    wrapped.__cause__ = OSError(28, "No space left on device")
    assert no_room(wrapped) and not no_room(OSError(2, "No such file")) and not no_room(ValueError("space"))
