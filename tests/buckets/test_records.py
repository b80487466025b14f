"""Records in a bucket: converted to it, copied from it split by split, read as from this disk."""

import pathlib

import pytest

from data_prep import generate, verify, vspw
from data_prep.conversion import builder
from data_prep.drawing import layouts
from vspw_jax.buckets import fetched
from vspw_jax.buckets.answers import BucketError
from vspw_jax.buckets.remote_folder import RemoteFolder
from vspw_jax.console import ending
from vspw_jax.console.errors import UserError
from vspw_jax.data import records


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Little video in VSPW's layout."""
    folder = tmp_path_factory.mktemp("drawn") / "vspw"
    generate.generate(folder, lambda aside: layouts.write_vspw(aside, {"train": 2, "val": 1}, 3, 48, 64, 0))
    return folder


@pytest.fixture
def converted(drawn, address):
    """The address of its records."""
    vspw.main([f"--source={drawn}", f"--output={address}"])
    ending.reached()
    return address


def test_records_are_the_same_as_on_this_disk(converted, drawn, tmp_path):
    vspw.convert(drawn, tmp_path / "records")
    here, there = records.Frames(tmp_path / "records", "train"), records.Frames(converted, "train")
    assert here.fingerprint == there.fingerprint
    assert [here[number] for number in range(len(here))] == [there[number] for number in range(len(there))]


def test_only_the_splits_that_are_read_are_copied(converted):
    frames = records.Frames(converted, "train")
    assert {path.name.split(".")[0] for path in frames.path.glob("*.array_record*")} == {"vspw-train"}
    assert not any("array_record" in path.name for path in records.find(converted).parent.glob("*.array_record*"))


def test_the_same_conversion_does_nothing_and_another_is_refused(converted, drawn, mended):
    mended[1].requests.clear()
    vspw.main([f"--source={drawn}", f"--output={converted}"])
    ending.reached()
    assert not any("array_record" in path for _, path in mended[1].requests if "prefix" not in path)
    with pytest.raises(UserError, match="holds records of another source, or made with other options"):
        vspw.main([f"--source={drawn}", f"--output={converted}", "--short-side=24"])


def test_a_conversion_that_is_stopped_leaves_nothing_there_and_goes_on(drawn, address, monkeypatch):
    describe = builder.Builder._describe
    monkeypatch.setattr(builder.Builder, "_describe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        vspw.main([f"--source={drawn}", f"--output={address}"])
    ending.reached()
    assert RemoteFolder(address).objects() == {}
    monkeypatch.setattr(builder.Builder, "_describe", describe)
    monkeypatch.setattr(builder.units, "convert", lambda *_: pytest.fail("it began anew"))
    vspw.main([f"--source={drawn}", f"--output={address}"])
    ending.reached()
    assert len(records.Frames(address, "val")) == 3


def test_records_that_could_not_be_sent_are_sent_by_the_same_command(drawn, address, mended, monkeypatch):
    vspw.main([f"--source={drawn}", f"--output={address}"])
    mended[1].refuse = lambda method, path: 403
    with pytest.raises(UserError, match="is refused[\\s\\S]*is kept on this disk"):
        ending.reached()
    mended[1].mend()
    assert RemoteFolder(address).objects() == {}
    monkeypatch.setattr(builder.units, "convert", lambda *_: pytest.fail("it began anew"))
    vspw.main([f"--source={drawn}", f"--output={address}"])
    ending.reached()
    assert len(records.Frames(address, "val")) == 3


def test_a_report_beside_records_makes_no_other_records_of_them(converted):
    path = records.find(converted)
    verify.main([f"--records={converted}"])
    ending.reached()
    assert any(name.startswith("report/") for name in RemoteFolder(converted).objects())
    fetched.copy_of_records.cache_clear()
    assert records.find(converted) == path


def test_an_overwritten_shard_is_found_by_the_next_run_and_not_by_this_one(converted):
    frames = records.Frames(converted, "val")
    remote = RemoteFolder(converted)
    shard = next(name for name in remote.objects() if "val.array_record" in name)
    remote.write(shard, b"damaged")
    assert len(records.Frames(converted, "val")) == 3 and frames[0]["video"]
    fetched.copy_of_records.cache_clear()
    with pytest.raises(UserError, match="Damaged shards"):
        records.Frames(converted, "val")


def test_no_records_and_no_bucket_are_told(mended, address):
    with pytest.raises(UserError, match="There is no converted data at"):
        records.find(address)
    assert not records.exist(address)
    with pytest.raises(BucketError, match="there is no bucket no-such-bucket"):
        records.exist(f"{mended[0]}://no-such-bucket/records")


@pytest.mark.parametrize("name", ["source", "output"])
def test_workers_elsewhere_see_no_bucket(name, drawn, address, tmp_path):
    places = {"source": drawn, "output": tmp_path / "records", name: address}
    with pytest.raises(UserError, match=f"--runner=DataflowRunner needs an --{name} that all its workers see"):
        vspw.main([*(f"--{key}={place}" for key, place in places.items()), "--runner=DataflowRunner"])


def test_a_source_in_a_bucket_is_copied(drawn, address, tmp_path):
    names = [str(path.relative_to(drawn)) for path in pathlib.Path(drawn).rglob("*") if path.is_file()]
    RemoteFolder(f"{address}/source").upload_all(drawn, names)
    vspw.main([f"--source={address}/source", f"--output={tmp_path / 'records'}"])
    assert len(records.Frames(tmp_path / "records", "val")) == 3
