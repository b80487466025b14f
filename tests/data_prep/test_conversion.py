"""A conversion that is killed, damaged, spread over workers or read from an archive leaves the same bytes."""

import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import zipfile

import pytest
import tensorflow_datasets as tfds

from data_prep import vspw
from data_prep.conversion import frames, runners, units
from vspw_jax.console.errors import UserError
from vspw_jax.data import records

SHARD_BYTES = 16_000
"""Small, so that the generated set makes a dozen shards."""


def digests(folder):
    """SHA-256 by file name, of all files."""
    files = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def uninterrupted(generated_vspw, tmp_path_factory):
    """Digests of the generated set's records in small shards."""
    output = tmp_path_factory.mktemp("uninterrupted")
    vspw.convert(generated_vspw, output, shard_bytes=SHARD_BYTES)
    return digests(output)


@pytest.fixture
def count_reads(monkeypatch):
    """A list that grows with every frame that is read."""
    read, names = frames.read_frame, []

    def counted(source, frame, form):
        names.append(frame.image)
        return read(source, frame, form)

    monkeypatch.setattr(frames, "read_frame", counted)
    return names


def test_tfds_reads_the_shards_in_order(generated_vspw, uninterrupted, tmp_path):
    vspw.convert(generated_vspw, tmp_path, shard_bytes=SHARD_BYTES)
    builder = tfds.builder_from_directory(records.find(tmp_path))
    assert builder.info.splits["train"].num_shards > 3 and builder.info.splits["train"].num_examples == 50
    found = [(record["video"].decode(), record["frame"].decode()) for record in builder.as_data_source("train")]
    videos = (generated_vspw / "train.txt").read_text().split()
    assert found == [(video, f"{number:08d}") for video in videos for number in range(1, 11)]


KILLED = """
import os, signal, sys
from data_prep import vspw
from data_prep.conversion import frames
read, count = frames.read_frame, 0
def killing(*arguments):
    global count
    count += 1
    if count == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(*arguments)
frames.read_frame = killing
vspw.convert(sys.argv[1], sys.argv[2], shard_bytes=int(sys.argv[3]))
"""


def test_a_killed_conversion_goes_on_where_it_was(generated_vspw, uninterrupted, tmp_path, count_reads):
    command = [sys.executable, "-c", KILLED, str(generated_vspw), str(tmp_path), str(SHARD_BYTES)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd()}, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    folder = tmp_path / "vspw" / "incomplete.1.0.0"
    done = len(list(folder.glob("*.json")))
    assert done >= 2 and list(folder.glob("partial-*")) and not records.exist(tmp_path)
    vspw.convert(generated_vspw, tmp_path, shard_bytes=SHARD_BYTES)
    assert digests(tmp_path) == uninterrupted
    assert 90 - 25 < len(count_reads) < 90 - 2 * done


@pytest.fixture
def stopped_at_the_end(generated_vspw, tmp_path, monkeypatch):
    """stopped_at_the_end(bytes): converts into tmp_path in shards of that size; all shards are there, nothing else."""

    def run(shard_bytes):
        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(vspw.Vspw, "_describe", stop)
            with pytest.raises(KeyboardInterrupt):
                vspw.convert(generated_vspw, tmp_path, shard_bytes=shard_bytes)

    return run


def test_shards_of_another_size_are_not_left_behind(generated_vspw, uninterrupted, tmp_path, stopped_at_the_end):
    stopped_at_the_end(3 * SHARD_BYTES)
    vspw.convert(generated_vspw, tmp_path, shard_bytes=SHARD_BYTES)
    assert digests(tmp_path) == uninterrupted


def test_a_shard_cut_short_after_it_was_written_is_written_again(
    generated_vspw, uninterrupted, tmp_path, stopped_at_the_end
):
    stopped_at_the_end(SHARD_BYTES)
    shard = next(tmp_path.rglob("*train.array_record-00001-of-*[0-9]"))
    shard.write_bytes(shard.read_bytes()[:-1])
    vspw.convert(generated_vspw, tmp_path, shard_bytes=SHARD_BYTES)
    assert digests(tmp_path) == uninterrupted


def test_two_processes_of_beam_leave_the_same_bytes(generated_vspw, uninterrupted, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    beam = runners.pipeline_options(runners.local_arguments(2))
    assert vspw.convert(generated_vspw, tmp_path, beam=beam, shard_bytes=SHARD_BYTES) == []
    assert digests(tmp_path) == uninterrupted


def test_options_that_nobody_knows_are_refused(generated_vspw, tmp_path):
    pytest.importorskip("apache_beam")
    with pytest.raises(UserError, match="--maxbad=3"):
        vspw.main([f"--source={generated_vspw}", f"--output={tmp_path}", "--maxbad=3"])
    with pytest.raises(UserError, match="cannot start --runner=NoSuchRunner"):
        vspw.main([f"--source={generated_vspw}", f"--output={tmp_path}", "--runner=NoSuchRunner"])


def test_a_cluster_that_does_not_take_the_work_is_told(generated_vspw, tmp_path):
    """And what was done before stays."""
    pytest.importorskip("apache_beam")
    elsewhere = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--job-server-timeout=1"]
    elsewhere += ["--environment_type=EXTERNAL", "--environment_config=localhost:1"]
    with pytest.raises(
        UserError, match="(?s)Beam could not begin: .*Mend the options of --runner, or start its cluster"
    ):
        vspw.main([f"--source={generated_vspw}", f"--output={tmp_path}", *elsewhere])
    vspw.main([f"--source={generated_vspw}", f"--output={tmp_path}"])


def empty_frame(folder, video, number):
    """Empties a frame of a training video; its path within the folder."""
    name = (folder / "train.txt").read_text().split()[video]
    path = pathlib.Path("data", name, "origin", f"{number:08d}.jpg")
    (folder / path).write_bytes(b"")
    return path


def test_bad_frames_are_counted_over_all_shards(source, tmp_path, count_reads):
    empty_frame(source, 0, 2)
    empty_frame(source, 1, 9)
    with pytest.raises(UserError, match="2 bad frames, 1 allowed") as caught:
        vspw.convert(source, tmp_path / "records", max_bad=1, shard_bytes=SHARD_BYTES)
    assert "00000002.jpg" in str(caught.value) and "00000009.jpg" in str(caught.value)
    first = len(count_reads)
    left_out = vspw.convert(source, tmp_path / "records", max_bad=2, shard_bytes=SHARD_BYTES)
    assert len(left_out) == 2 and len(count_reads) == 90  # Shards that were done are not done again.
    assert first < 90
    assert len(records.Frames(tmp_path / "records", "train")) == 48


def test_mended_files_are_converted_without_beginning_anew(
    source, generated_vspw, uninterrupted, tmp_path, count_reads
):
    mended = empty_frame(source, 1, 9)
    with pytest.raises(UserError, match="is empty"):
        vspw.convert(source, tmp_path / "records", shard_bytes=SHARD_BYTES)
    done = len(count_reads)
    (source / mended).write_bytes((generated_vspw / mended).read_bytes())
    vspw.convert(source, tmp_path / "records", shard_bytes=SHARD_BYTES)
    assert digests(tmp_path / "records") == uninterrupted
    assert len(count_reads) < done + 90 - 10


def pack_zip(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, pathlib.Path("VSPW_480p", file.relative_to(folder)))
    return path


def pack_tar(folder, path):
    with tarfile.open(path, "w") as archive:
        archive.add(folder, "VSPW_480p")
    return path


@pytest.mark.parametrize("pack", [pack_zip, pack_tar])
def test_an_archive_gives_the_same_records_as_its_folder(generated_vspw, tmp_path, pack):
    vspw.convert(generated_vspw, tmp_path / "folder")
    vspw.convert(pack(generated_vspw, tmp_path / "VSPW.archive"), tmp_path / "records")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["VSPW.archive", "folder", "records"]
    for split in ("train", "val", "test"):
        ours, theirs = (records.Frames(tmp_path / name, split) for name in ("records", "folder"))
        assert ours.fingerprint == theirs.fingerprint and ours[3] == theirs[3]


def test_a_unit_with_no_frame_left_makes_an_empty_shard(source, tmp_path):
    video = source / "data" / (source / "train.txt").read_text().split()[0]
    for image in (video / "origin").iterdir():
        image.write_bytes(b"")
    left_out = vspw.convert(source, tmp_path / "records", max_bad=10, shard_bytes=units.SHARD_BYTES // 2**14)
    frames = records.Frames(tmp_path / "records", "train")
    assert len(left_out) == 10 and len(frames) == 40 and len(frames.videos) == 4
    assert frames[0]["video"] == frames.videos[0].name and frames[39]["frame"] == "00000010"
