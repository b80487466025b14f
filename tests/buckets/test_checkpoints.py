"""Checkpoints of a workdir in a bucket."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vspw_jax.buckets import workdirs
from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.checkpoints import checkpoint
from vspw_jax.console import ending
from vspw_jax.console.errors import UserError


def state_of(step):
    weights = np.random.default_rng(step).normal(size=(40, 50)).astype(np.float32)
    return {
        "params": {"a": jnp.asarray(weights)},
        "model_state": {},
        "opt_state": ({"mu": jnp.asarray(weights)}, ()),
        "step": jnp.asarray(step, jnp.int32),
        "bad_steps": jnp.asarray(0, jnp.int32),
    }


def opened(address, **options):
    return checkpoint.Checkpoints(workdirs.opened(address).folder, keep=2, **options)


def save(address, *steps):
    """A run that saves these steps, and its end."""
    checkpoints = opened(address, trains=True)
    for step in steps:
        checkpoints.save(step, state_of(step))
    checkpoints.close()
    ending.reached()


def restored(checkpoints):
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(1))
    return checkpoints.restore(like)


def steps_there(address):
    return sorted({name.split("/")[0] for name in RemoteFolder(f"{address}/checkpoints").objects()})


def a_file_of(address, step):
    """The name of a step's largest object: its arrays."""
    there = RemoteFolder(f"{address}/checkpoints/{step}")
    found = there.objects()
    return there, max(found, key=lambda name: found[name].size)


def test_a_state_comes_back_and_the_oldest_goes(address):
    save(address, 2, 4, 6)
    assert steps_there(address) == ["4", "6"]
    checkpoints = opened(address)
    assert checkpoints.latest_step() == 6
    state = restored(checkpoints)
    jax.tree.map(np.testing.assert_array_equal, state, state_of(6))


def test_only_the_step_that_is_read_is_copied(address, mended):
    save(address, 2, 4)
    mended[1].requests.clear()
    restored(opened(address))
    assert not any("checkpoints/2/" in path for method, path in mended[1].requests if method == "GET")


def test_a_step_counts_once_its_manifest_is_there(address):
    save(address, 2, 4)
    RemoteFolder(f"{address}/checkpoints/4").remove(["manifest.json"])
    assert opened(address).intact_step() == 2
    assert steps_there(address) == ["2", "4"]  # A reader deletes nothing.
    save(address, 6)
    assert steps_there(address) == ["2", "6"]


def test_a_save_that_fails_on_the_way_costs_no_checkpoint(address, mended):
    save(address, 2)
    kind, line = mended
    checkpoints = opened(address, trains=True)
    line.refuse = lambda method, path: 403 if method in ("PUT", "POST") else 0
    with pytest.raises(UserError, match="is refused"):
        checkpoints.save(4, state_of(4))
        checkpoints.close()
    line.mend()
    assert opened(address).intact_step() == 2


@pytest.mark.parametrize("damage", ["bit", "lost"])
def test_damage_is_found_named_and_set_aside_and_the_one_before_serves(address, damage, capfd):
    save(address, 2, 4)
    there, name = a_file_of(address, 4)
    data = bytearray(there.read(name))
    data[len(data) // 2] ^= 1
    there.write(name, bytes(data)) if damage == "bit" else there.remove([name])
    assert opened(address).intact_step() == 2
    assert name in capfd.readouterr().err
    checkpoints = opened(address, trains=True)
    checkpoints.set_aside_damaged()
    checkpoints.save(4, state_of(4))
    checkpoints.close()
    ending.reached()
    assert opened(address).intact_step() == 4
    assert any(name.startswith("damaged/4/") for name in RemoteFolder(address).objects())


def test_where_all_are_damaged_nothing_starts_anew(address):
    save(address, 2)
    there, name = a_file_of(address, 2)
    there.write(name, b"")
    with pytest.raises(UserError, match="is damaged: 2"):
        opened(address).intact_step()


def test_a_reader_follows_a_run_that_goes_on(address, capfd):
    save(address, 2)
    checkpoints, list_once = opened(address), []
    bring = checkpoints._copies.bring

    def bring_late(step):
        if not list_once:
            list_once.append(step)
            found = checkpoints._copies._mirror.under("checkpoints/2")
            save_elsewhere(address)
            checkpoints._copies._mirror.bring(found)
        bring(step)

    def save_elsewhere(address):
        others = opened(address, trains=True)
        for step in (4, 6):
            others.save(step, state_of(step))
        others.close()

    checkpoints._copies.bring = bring_late
    assert checkpoints.intact_step() == 6
    assert "is damaged" not in capfd.readouterr().err


def test_what_a_run_shows_is_sent_before_its_checkpoint(address, mended):
    mirror = workdirs.opened(address)
    mirror.begin()
    checkpoints = checkpoint.Checkpoints(mirror.folder, keep=2, trains=True)
    (mirror.folder / "metrics.jsonl").write_text(json.dumps({"step": 2}) + "\n")
    checkpoints.save(2, state_of(2))
    checkpoints.close()
    assert RemoteFolder(address).read("metrics.jsonl") == b'{"step": 2}\n'


def test_a_checkpoint_to_start_from_is_a_file_with_what_says_more_of_it_or_a_run(address, tmp_path):
    remote = RemoteFolder(f"{address}/released")
    for name in ("x.pth", "config.json", "other.pth", "deep/y.pth"):
        remote.write(name, name.encode())
    path = workdirs.to_start_from(f"{address}/released/x.pth")
    assert path.endswith("/released/x.pth")
    copied = (tmp_path / "cache" / "fetched").glob("*/released/*")
    assert {copy.name for copy in copied} == {"x.pth", "config.json"}
    save(f"{address}/run", 2)
    for place in ("run", "run/checkpoints", "run/checkpoints/2"):
        path = pathlib.Path(workdirs.to_start_from(f"{address}/{place}"))
        brought = any(found.is_file() for found in path.rglob("*"))  # A run's checkpoints come when they are asked for.
        assert str(path).endswith(place) and path.is_dir() and brought == place.endswith("2")
    assert workdirs.to_start_from("local.pth") == "local.pth"


def test_a_workdir_in_no_bucket_is_told(mended):
    with pytest.raises(BucketError, match="there is no bucket no-such-bucket"):
        workdirs.opened(f"{mended[0]}://no-such-bucket/run")
