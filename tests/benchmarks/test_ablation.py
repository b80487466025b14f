"""The ablation runner: its intervals against a loop draw by draw, and a study of two arms whose answer is known."""

import dataclasses
import itertools
import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as xml

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from benchmarks.ablation import __main__ as ablation
from benchmarks.ablation import bootstrap, definition, encoder_recipes, locks, page, picture, program, record, table
from benchmarks.ablation.arms import Arm, Ensemble, Evaluated, Study
from benchmarks.ablation.run import Training, make_runs
from benchmarks.ablation.studies import DRAWN, STUDIES
from benchmarks.ablation.versions import ROOT
from data_prep import generate, vspw
from vspw_jax.console.errors import UserError, run_program
from vspw_jax.metrics import scores
from vspw_jax.metrics.counts import VideoCounts
from vspw_jax.models import segmenter
from vspw_jax.training import checks, train_state

NEVER = 3
"""A class that no pixel has: what is predicted so is wrong, and of a class's IoU its accuracy is left."""
PIXELS = 1000


def video(name, hits, labelled=PIXELS):
    """Counts of a video in which so many of `labelled` pixels of class k are right, the rest taken for NEVER."""
    cells = {5 * k: hit for k, hit in enumerate(hits)} | {4 * k + NEVER: labelled - hit for k, hit in enumerate(hits)}
    pairs = np.array(sorted(cells.items()), np.int64)
    windows = {8: np.array([[10, 5, 10, 5]]), 16: np.zeros((0, 4), np.int64)}
    frames = np.array([[labelled * len(hits), sum(hits)]])
    return VideoCounts(name, 4, pairs, frames, windows, repeated=0, void=0, unfit=0)


def drawn_arm(seed, seeds=3, videos=5, gain=0):
    """Counts by seed and video, drawn anew for each seed, with `gain` more right pixels of each class."""
    rng = np.random.default_rng(seed)
    hits = rng.integers(200, 700, (seeds, videos, 3)) + gain
    return [[video(f"v{v}", hits[s, v].tolist()) for v in range(videos)] for s in range(seeds)]


def pooled_miou(videos):
    """mIoU of several videos together, from the definition."""
    matrix = sum(video.matrix_KK() for video in videos)
    ious = [
        matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]) for k in range(4) if matrix[k].sum() > 0
    ]
    return sum(ious) / len(ious)


def test_a_difference_equals_the_loop_over_draws_seeds_and_videos(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPLICATES", 60)
    first, second = drawn_arm(0), drawn_arm(1)
    found = bootstrap.resample(second)["mIoU"].minus(bootstrap.resample(first)["mIoU"]).summary()

    videos_RV, seeds_RS = scores.draws(5, bootstrap.SEED, 60), scores.draws(3, bootstrap.SEED + 1, 60)
    differences = []
    for times_V, times_S in zip(videos_RV, seeds_RS, strict=True):
        of_seeds = []
        for s in np.repeat(np.arange(3), times_S):
            drawn = [[arm[s][v] for v in np.repeat(np.arange(5), times_V)] for arm in (first, second)]
            of_seeds.append(pooled_miou(drawn[1]) - pooled_miou(drawn[0]))
        differences.append(sum(of_seeds) / len(of_seeds))
    by_seed = [pooled_miou(second[s]) - pooled_miou(first[s]) for s in range(3)]
    assert found["mean"] == pytest.approx(np.mean(by_seed), abs=1e-14)
    assert found["interval"] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-14)
    expected = stats.t.interval(0.95, 2, np.mean(by_seed), stats.sem(by_seed))
    assert found["over_seeds"] == pytest.approx(expected, abs=1e-14)
    assert set(times_S.tolist()) <= set(range(4)) and times_S.sum() == 3 and times_V.sum() == 5


def test_a_fixed_effect_is_found_exactly_and_identical_arms_do_not_differ():
    """By pairing, however much seeds and videos differ among themselves."""
    first, better = (bootstrap.resample(drawn_arm(0, gain=gain)) for gain in (0, 100))
    alone = first["mIoU"].summary()["interval"]
    assert alone[1] - alone[0] > 0.05
    for name in ("mIoU", "pixel_accuracy"):
        found = better[name].minus(first[name]).summary()
        assert [found["mean"], *found["interval"], *found["over_seeds"]] == pytest.approx([100 / PIXELS] * 5)
        same = first[name].minus(first[name]).summary()
        assert same == {"mean": 0, "interval": [0, 0], "over_seeds": [0, 0]}


def test_arms_that_differ_by_chance_alone_are_mostly_not_told_apart(monkeypatch):
    monkeypatch.setattr(bootstrap, "REPLICATES", 400)
    told_apart = 0
    for trial in range(40):
        first, second = (bootstrap.resample(drawn_arm(2 * trial + part, 6, 12))["mIoU"] for part in (0, 1))
        low, high = second.minus(first).summary()["interval"]
        told_apart += low > 0 or high < 0
    assert told_apart <= 6  # 2 are expected; more than 6 come in 1 of 300 such tests.


def test_what_cannot_be_said_is_none():
    one_seed = bootstrap.resample(drawn_arm(0, seeds=1))["mIoU"].summary()
    assert one_seed["over_seeds"] is None and one_seed["interval"][0] < one_seed["interval"][1]
    one_video = bootstrap.resample(drawn_arm(0, videos=1))
    assert one_video["mIoU"].summary()["interval"] is None
    assert one_video["VC16"].summary() is None  # No video has a window of 16 frames.


TINY = {
    "model.image_size": (32, 32),
    "model.encoder.dim": 32,
    "model.encoder.heads": 2,
    "model.decoder.dim": 16,
    "model.decoder.pool_scales": (1,),
    "model.decoder.auxiliary_dim": 8,
    "optimizer.learning_rate": 5e-3,
    "schedule.warmup_steps": 0,
    "train.batch": 8,
    "train.steps": 40,
    "data.train_split": "val",
    "data.augment.base_size": (64, 48),
    "data.augment.photometric": False,
    "evaluate.stride": (32, 32),
    "run.picture_every": 1000,
}


FEW_DRAWN = {
    "data.generate.train": 2,
    "data.generate.val": 1,
    "data.generate.frames": 2,
    "data.generate.train_frames": 2,
    "data.generate.height": 32,
    "data.generate.width": 32,
}


def tiny_study(records, **ratios):
    """Arms of UperNet that see what they are scored on as it is (1), or hardly: at a twentieth of its size.

    Their data alone differs, so that they share a compiled program.
    """
    arms = {name: Arm("configs/upernet.py:demo", {"data.augment.resize_ratio": (r, r)}) for name, r in ratios.items()}
    pairs = tuple((arm, less) for less, arm in itertools.combinations(arms, 2))
    return Study("Seeing helps.", "mIoU", arms, pairs, {**TINY, "data.records": str(records)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ablation")


@pytest.fixture(scope="module")
def shared_colours(tmp_path_factory):
    """Drawn records in which colour tells no class: at a twentieth of their size, nothing does."""
    folder = tmp_path_factory.mktemp("shared_colours")
    options = ["--train=5", "--val=3", "--test=1", "--frames=10", "--height=48", "--width=64", "--colours=shared"]
    generate.main([f"--output={folder / 'vspw'}", *options])
    vspw.convert(folder / "vspw", folder / "records")
    return folder / "records"


@pytest.fixture
def study(monkeypatch, shared_colours):
    """The study "tiny" in place of the real ones: `study(arm=ratio)` defines it."""

    def define(**ratios):
        found = tiny_study(shared_colours, **ratios)
        monkeypatch.setattr(ablation, "STUDIES", {"tiny": found})
        return found

    define(blind=0.05, seeing=1.0)
    return define


@pytest.fixture
def command(capfd):
    """Runs the command in this process: (exit status, stdout, stderr)."""

    def run(*arguments):
        capfd.readouterr()
        status = 0
        try:
            run_program(lambda: ablation.main([str(argument) for argument in arguments]))
        except SystemExit as ended:
            status = ended.code
        return (status, *capfd.readouterr())

    return run


@pytest.fixture
def trained(study, command, folder, compile_cache, monkeypatch):
    """What the command said that trained the study."""
    kept = folder / "first_command.json"
    if not kept.exists():
        for arm in ("blind", "seeing"):
            (folder / "tiny" / arm).mkdir(parents=True)
            (folder / "tiny" / arm / "compile_cache").symlink_to(compile_cache)
        # One device: the program for eight takes longer to compile.
        monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1")
        kept.write_text(json.dumps(command("--study=tiny", "--seeds=1", f"--output={folder}")))
    return json.loads(kept.read_text())


def read(path):
    return json.loads(path.read_text())


def changed(folder):
    """Files of checkpoints and their times of change."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("tiny/*/seed_*/checkpoints/**/*")}


def test_an_arm_that_sees_beats_one_that_does_not(trained, folder):
    status, output, errors = trained
    assert status == 0, errors
    found = read(folder / "tiny.json")
    assert found["complete"] and list(found["arms"]) == ["blind", "seeing"] and found["warnings"] == []
    (pair,) = found["pairs"]
    difference = pair["differences"]["mIoU"]
    assert (pair["arm"], pair["less"], pair["seeds"]) == ("seeing", "blind", [0])
    assert difference["interval"][0] > 0 and difference["excludes_0"]
    assert difference["over_seeds"] is None and difference["settled"] is None  # Of one seed.
    assert "seeing - blind" in output and str(folder / "tiny.svg") in output
    assert "tiny: 100%" in errors and "2/2 runs" in errors


def test_scores_are_those_of_the_evaluations(trained, folder):
    found = read(folder / "tiny.json")
    for arm, about in found["arms"].items():
        own = read(folder / "tiny" / arm / "seed_0" / "evaluation.json")
        for name, values in about["scores"].items():
            assert values == [own[name]]
        for name, mean in about["means"].items():
            assert mean["mean"] == pytest.approx(own[name], abs=1e-12)
        assert about["runs"][0]["seconds"] > 0 and about["runs"][0]["starts"][0]["status"] == 0
    assert found["definition"]["fields"]["train.steps"] == 40 and found["versions"]["jax"] and found["how"]


def test_the_same_command_trains_nothing(trained, command, folder):
    before, log = changed(folder), (folder / "tiny" / "seeing" / "seed_0" / "output.log").read_text()
    assert "training" in log
    assert command("--study=tiny", "--seeds=1", f"--output={folder}")[0] == 0
    assert changed(folder) == before
    assert (folder / "tiny" / "seeing" / "seed_0" / "output.log").read_text() == log


def test_a_damaged_record_of_the_study_is_named(trained, command, folder):
    path = folder / "tiny" / "study.json"
    whole = path.read_text()
    for damage in (whole[:100], "[]"):
        path.write_text(damage)
        status, _, errors = command("--study=tiny", "--seeds=1", f"--output={folder}")
        assert status == 2 and str(path) in errors and "damaged" in errors and "Traceback" not in errors
    path.write_text(whole)


def test_a_study_that_changed_is_refused_with_what_differs(trained, study, command, folder):
    study(blind=0.05, seeing=2.0)
    status, _, errors = command("--study=tiny", "--seeds=1", f"--output={folder}")
    assert status == 2 and "seeing: data.augment.resize_ratio: [1.0, 1.0] there, [2.0, 2.0] now" in errors
    assert "  blind: " not in errors and str(folder / "tiny") in errors
    study(blind=0.05)
    status, _, errors = command("--study=tiny", "--seeds=1", f"--output={folder}")
    assert status == 2 and "seeing: data.augment.resize_ratio: [1.0, 1.0] there, None now" in errors


def test_an_unknown_study_a_missing_one_and_bad_options(command, folder):
    for arguments, said in (
        (["--study=contrst"], ("Did you mean contrast?", "Known: ", *STUDIES)),
        ([], ("--study=NAME is missing", "contrast")),
        (["--study=contrast", "--seeds=0"], ("--seeds=0: expected 1 or more",)),
        (["--study=contrast", "--arms=nce_2,nce_3"], ("no arm 'nce_3'", "clips_2")),
        (["--study=contrast", "--seeds=2", "--seed=2"], ("--seed=2: expected one of 0 to 1",)),
    ):
        status, _, errors = command(*arguments, f"--output={folder}")
        assert status == 2 and all(part in errors for part in said) and "Traceback" not in errors
    status, output, _ = command("--list")
    assert status == 0 and all(f"{name}: {study.claim}" in output for name, study in STUDIES.items())


def test_a_field_that_a_recipe_lacks_is_found_before_anything_is_trained(study, command, tmp_path, monkeypatch):
    tiny = study(first=0.1)
    wrong = dataclasses.replace(tiny, arms={**tiny.arms, "second": Arm("configs/upernet.py:demo", {"train.step": 1})})
    monkeypatch.setattr(ablation, "STUDIES", {"tiny": wrong})
    status, _, errors = command("--study=tiny", f"--output={tmp_path}")
    assert status == 2 and "'second' sets train.step" in errors and "expected train.steps" in errors
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == ["lock"]


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """stand_in(code): the runs' programs are this Python code, with their `module`, their `flags` and, of --workdir or
    --output, `workdir`."""

    def define(code):
        path = tmp_path / "stand_in.py"
        start = "import os, pathlib, signal, sys\nmodule = sys.argv[1]\n"
        start += "flags = dict(flag.partition('=')[::2] for flag in sys.argv[2:])\n"
        start += "workdir = pathlib.Path(flags.get('--workdir') or flags['--output'])\n"
        path.write_text(start + textwrap.dedent(code))
        monkeypatch.setattr(program, "PYTHON", (sys.executable, str(path)))

    return define


@pytest.fixture
def again(trained, study, stand_in, folder, tmp_path):
    """A copy of the trained study, in which further runs leave what seed 0 left, but for one that fails."""
    stand_in(
        f"""
        import shutil
        if workdir.parts[-2:] == ("seeing", "seed_3"):
            sys.exit(2)
        source = pathlib.Path({str(folder)!r}) / "tiny" / workdir.parent.name / "seed_0"
        shutil.copytree(source / "evaluated", workdir / "evaluated", dirs_exist_ok=True)
        shutil.copy(source / "evaluation.json", workdir)
        """
    )
    return shutil.copytree(folder, tmp_path / "again", symlinks=True)


def test_more_seeds_add_theirs(command, again, folder):
    before = changed(again)
    status, output, errors = command("--study=tiny", "--seeds=3", f"--output={again}")
    assert status == 0, errors
    assert changed(again) == before and "2/6 runs" in errors and "6/6 runs" in errors
    (pair,), (first,) = (read(path / "tiny.json")["pairs"] for path in (again, folder))
    difference = pair["differences"]["mIoU"]
    assert pair["seeds"] == [0, 1, 2]
    # Seeds that do not differ add nothing to either interval.
    assert difference["interval"] == pytest.approx(first["differences"]["mIoU"]["interval"])
    assert difference["over_seeds"] == pytest.approx([difference["mean"]] * 2) and difference["settled"]
    assert "higher" in output


def test_a_study_that_ends_early_shows_what_is_done(command, again):
    assert command("--study=tiny", "--seeds=4", f"--output={again}")[0] == 2
    found = read(again / "tiny.json")
    assert not found["complete"] and (found["runs_done"], found["runs_asked_for"]) == (7, 8)
    assert {arm: about["seeds"] for arm, about in found["arms"].items()} == {"blind": [0, 1, 2, 3], "seeing": [0, 1, 2]}
    assert found["pairs"][0]["seeds"] == [0, 1, 2] and "7 of 8 runs are done" in table.table(found)
    assert (again / "tiny.svg").read_text().count("<circle") == 7


@pytest.mark.parametrize("name", ["evaluation.json", "ablation.json"])
def test_a_damaged_file_of_a_run_is_made_again(command, again, name):
    path = again / "tiny" / "seeing" / "seed_0" / name
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    (again / "tiny.json").write_text("{")
    before = (again / "tiny" / "blind" / "seed_0" / "ablation.json").stat().st_mtime_ns
    status, _, errors = command("--study=tiny", "--seeds=1", f"--output={again}")
    assert status == 0 and "1/2 runs" in errors and "2/2 runs" in errors
    assert read(path.with_name("evaluation.json"))["mIoU"] > 0 and read(again / "tiny.json")["complete"]
    assert (again / "tiny" / "blind" / "seed_0" / "ablation.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(("code", "status"), [("sys.exit(2)", 2), ("raise RuntimeError", 1)])
def test_a_run_that_fails_is_quoted(study, command, stand_in, tmp_path, code, status):
    stand_in(f"print('\\n'.join(f'line {{n}}' for n in range(99)), flush=True)\n{code}")
    found, _, errors = command("--study=tiny", f"--output={tmp_path}")
    log = tmp_path / "tiny" / "blind" / "seed_0" / "output.log"
    assert found == status and f"blind with seed 0 ended with status {status}" in errors and str(log) in errors
    assert "line 98" in errors and "line 9\n" not in errors
    assert read(log.with_name("ablation.json"))["starts"][0]["status"] == status


def test_asked_to_stop_it_lets_the_run_save_and_says_how_to_go_on(study, command, stand_in, tmp_path):
    stand_in(
        """
        signal.signal(signal.SIGTERM, lambda *_: ((workdir / "saved").touch(), sys.exit(0)))
        os.kill(os.getppid(), signal.SIGTERM)
        while True:
            signal.pause()
        """
    )
    before = signal.getsignal(signal.SIGTERM)
    status, _, errors = command("--study=tiny", "--seeds=7", f"--output={tmp_path}")
    workdir = tmp_path / "tiny" / "blind" / "seed_0"
    assert status == 130 and (workdir / "saved").exists() and signal.getsignal(signal.SIGTERM) == before
    assert f"To go on: python -m benchmarks.ablation --study=tiny --seeds=7 --output={tmp_path}" in errors
    assert "Traceback" not in errors and len(read(workdir / "ablation.json")["starts"]) == 1


def test_a_signal_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ablation.asked_to_stop():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_that_somebody_else_stops_is_no_result(study, command, stand_in, tmp_path):
    """It ends with status 0, as training does when a scheduler stops it, and leaves no scores."""
    stand_in("sys.exit(0)")
    workdir = tmp_path / "tiny" / "blind" / "seed_0"
    workdir.mkdir(parents=True)
    (workdir / "evaluation.json").write_text("{}")
    assert command("--study=tiny", f"--output={tmp_path}")[0] == 130
    assert not (workdir / "evaluation.json").exists() and not (tmp_path / "tiny.json").exists()


@pytest.mark.parametrize("whole", [True, False])
def test_an_arm_starts_from_its_pretraining_once_that_is_whole(study, command, stand_in, tmp_path, monkeypatch, whole):
    first = Arm("configs/mdp.py:demo", {"train.steps": 3, "seed": 9})
    arms = {"only": Arm("configs/mdp_finetune.py:demo", pretraining=first)}
    monkeypatch.setattr(ablation, "STUDIES", {"tiny": Study("", "mIoU", arms, (), {"train.steps": 2})})
    stand_in(
        f"""
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "flags").write_text("\\n".join(sys.argv[2:]))
        (workdir / "checkpoints" / "{3 if whole else 2}").mkdir(parents=True)
        sys.exit(0 if "pretraining" in workdir.parts else 2)
        """
    )
    status, _, _ = command("--study=tiny", "--seeds=1", f"--output={tmp_path}")
    pretrained = tmp_path / "tiny" / "only" / "pretraining" / "seed_0"
    flags = (pretrained / "flags").read_text().splitlines()
    assert {"--config=configs/mdp.py:demo", "--config.train.steps=3", "--config.seed=0"} <= set(flags)
    assert "--config.run.afterwards=()" in flags
    tuned = tmp_path / "tiny" / "only" / "seed_0" / "flags"
    assert (status, tuned.exists()) == ((2, True) if whole else (130, False))
    if whole:
        assert {f"--config.init_from={pretrained}", "--config.train.steps=2"} <= set(tuned.read_text().splitlines())
    assert read(tmp_path / "tiny" / "study.json")["only, pretraining: train.steps"] == 3


LEAVES = """
leaves = {
    ("vspw_jax.main", "train"): workdir / "evaluation.json",
    ("vspw_jax.main", "evaluate"): workdir / "evaluation.json",
    ("data_prep.pseudo_labels", None): workdir / "made",
    ("vspw_jax.ensemble", None): workdir / "ensemble.json",
}[module, flags.get("--mode")]
leaves.parent.mkdir(parents=True, exist_ok=True)
leaves.write_text("{}")
with (pathlib.Path(FOLDER) / "calls").open("a") as calls:
    print(module, *sys.argv[2:], file=calls)
if module == FAILING:
    sys.exit(2)
"""
"""A stand-in that leaves what each program leaves, with nothing in it."""


def made(command, stand_in, monkeypatch, tmp_path, arms, *options, failing=None):
    """(exit status, what was called in its order, without the first arm's training, as sets of words)."""
    monkeypatch.setattr(
        ablation, "STUDIES", {"tiny": Study("", "mIoU", arms, (), {"data.records": "{folder}/records"})}
    )
    monkeypatch.setattr(record, "_counted", lambda run: [])
    monkeypatch.setattr(ablation, "results", lambda *_: {})
    monkeypatch.setattr(ablation, "write", lambda *_: None)
    monkeypatch.setattr(table, "table", lambda _: "")
    stand_in(f"FOLDER, FAILING = {str(tmp_path)!r}, {failing!r}\n{LEAVES}")
    status, _, errors = command("--study=tiny", "--seeds=1", f"--output={tmp_path}", *options)
    return status, errors, [set(line.split()) for line in (tmp_path / "calls").read_text().splitlines()[1:]]


def test_an_arm_of_anothers_weights_is_evaluated_with_its_own_fields(command, stand_in, monkeypatch, tmp_path):
    arms = {
        "first": Arm("configs/memory_a.py:demo", {"train.steps": 7}),
        "again": Evaluated("first", {"evaluate.stages": 2}),
    }
    status, errors, (called,) = made(command, stand_in, monkeypatch, tmp_path, arms)
    assert status == 0, errors
    tiny = tmp_path / "tiny"
    assert {"vspw_jax.main", "--mode=evaluate", "--config=configs/memory_a.py:demo", "--config.seed=0"} <= called
    assert {f"--workdir={tiny}/again/seed_0", f"--config.init_from={tiny}/first/seed_0"} <= called
    assert {"--config.init_from_key=", "--config.evaluate.weights=trained"} <= called
    assert {"--config.evaluate.stages=2", "--config.train.steps=7", f"--config.data.records={tiny}/records"} <= called
    assert read(tiny / "study.json")["again: weights_of"] == "first"


def test_an_ensemble_reads_its_members_scores_of_the_same_seed(command, stand_in, monkeypatch, tmp_path):
    arms = {
        "a": Arm("configs/upernet.py:demo", {"evaluate.save_scores": True}),
        "b": Evaluated("a", {"evaluate.flip": True}),
        "both": Ensemble(("a", "b")),
        "majority": Ensemble(("a", "b"), "vote"),
        "chosen": Ensemble(("a", "b"), "weighted"),
    }
    status, errors, (_, *called) = made(command, stand_in, monkeypatch, tmp_path, arms)
    assert status == 0, errors
    tiny = tmp_path / "tiny"
    scores = {f"--scores={tiny}/{arm}/seed_0/scores/val" for arm in ("a", "b")}
    about = {"vspw_jax.ensemble", f"--records={tiny}/records", "--split=val"}
    ways = {"both": {"--method=mean"}, "majority": {"--method=vote"}, "chosen": {"--sweep=0:1:0.1", "--halves"}}
    for words, (arm, way) in zip(called, ways.items(), strict=True):
        assert scores | about | way | {f"--output={tiny}/{arm}/seed_0"} == words
    assert read(tiny / "study.json")["majority: method"] == "vote"


def test_arms_that_are_named_run_with_what_they_are_made_of(command, stand_in, monkeypatch, tmp_path):
    alike = Arm("configs/upernet.py:demo", {"evaluate.save_scores": True})
    arms = {
        "a": alike,
        "apart": alike,
        "b": alike,
        "b_again": Evaluated("b", {"evaluate.flip": True}),
        "both": Ensemble(("a", "b_again")),
    }
    status, errors, called = made(command, stand_in, monkeypatch, tmp_path, arms, "--arms=both")
    assert status == 0, errors
    assert {folder.name for folder in (tmp_path / "tiny").iterdir() if folder.is_dir()} == arms.keys() - {"apart"}
    assert "vspw_jax.ensemble" in called[-1]


def test_an_arm_is_trained_on_labels_that_another_made(command, stand_in, monkeypatch, tmp_path):
    drawn = {"data.labelled_frames": "drawn", "data.labels_seed": 3}
    arms = {
        "teacher": Arm("configs/upernet.py:demo", {**drawn, "train.steps": 7}),
        "student": Arm("configs/upernet.py:demo", drawn, labels_of="teacher", surest=0.5),
    }
    status, errors, called = made(command, stand_in, monkeypatch, tmp_path, arms)
    assert status == 0, errors
    predicting, labelling, training = called
    teacher, student = (tmp_path / "tiny" / arm / "seed_0" for arm in arms)
    assert {"--mode=evaluate", f"--workdir={student}/labeller", f"--config.init_from={teacher}"} <= predicting
    assert {"--config.data.eval_split=train", "--config.evaluate.save_scores=True"} <= predicting
    assert {"data_prep.pseudo_labels", f"--records={tmp_path}/tiny/records", "--labelled-frames=drawn"} <= labelling
    assert {f"--scores={student}/labeller/scores/train", "--threshold=0.5", "--labels-seed=3"} <= labelling
    assert {"--mode=train", f"--config.data.records={student}/labels"} <= training
    assert "--config.data.labelled_frames=all" in training and "--config.data.labelled_frames=drawn" not in training


def test_where_labels_cannot_be_made_nothing_is_trained_on_them(command, stand_in, monkeypatch, tmp_path):
    arms = {
        "teacher": Arm("configs/upernet.py:demo"),
        "student": Arm("configs/upernet.py:demo", labels_of="teacher"),
    }
    status, errors, called = made(command, stand_in, monkeypatch, tmp_path, arms, failing="data_prep.pseudo_labels")
    assert status == 2 and "student with seed 0 ended with status 2" in errors and len(called) == 2


@pytest.mark.parametrize(
    "arm",
    [
        Evaluated("later", {}),
        Evaluated("both", {}),
        Ensemble(("first", "nobody")),
        Ensemble(("first", "both")),
        Arm("configs/nce.py:demo", {}, None, "both"),
    ],
    ids=["a later arm", "an ensemble's weights", "nobody's scores", "an ensemble's scores", "an ensemble's labels"],
)
def test_an_arm_made_of_one_that_it_cannot_be_made_of_is_named(arm):
    first = Arm("configs/nce.py:demo", {"evaluate.save_scores": True})
    arms = {"first": first, "second": first, "both": Ensemble(("first", "second")), "wrong": arm, "later": first}
    with pytest.raises(UserError, match="Arm 'wrong' is made of '.*': expected one that .*first, second"):
        definition.resolved(Study("", "mIoU", arms, ()))


def test_what_a_study_cannot_make_is_found_before_anything_is_trained():
    arms = {name: Arm("configs/nce.py:demo") for name in ("first", "second")}
    with pytest.raises(UserError, match="'both' is made of the scores of 'first', which saves none"):
        definition.resolved(Study("", "mIoU", {**arms, "both": Ensemble(("first", "second"))}, ()))
    with pytest.raises(UserError, match="The study compares 'third': expected one of its arms, first, second"):
        definition.resolved(Study("", "mIoU", arms, (("second", "first"), ("third", "first"))))


def test_what_is_made_of_a_run_is_made_anew_with_it(command, stand_in, monkeypatch, tmp_path):
    arms = {
        "first": Arm("configs/upernet.py:demo"),
        "again": Evaluated("first", {"evaluate.flip": True}),
        "student": Arm("configs/upernet.py:demo", {"data.labelled_frames": "drawn"}, labels_of="first"),
        "apart": Arm("configs/upernet.py:demo"),
    }
    assert made(command, stand_in, monkeypatch, tmp_path, arms)[0] == 0
    tiny, calls = tmp_path / "tiny", tmp_path / "calls"
    (tiny / "student" / "seed_0" / "checkpoints").mkdir()
    calls.unlink()
    again = ["--study=tiny", "--seeds=1", f"--output={tmp_path}"]
    assert command(*again)[0] == 0 and not calls.exists()
    shutil.rmtree(tiny / "first" / "seed_0")
    stand_in(f"FOLDER, FAILING = {str(tmp_path)!r}, None\n{LEAVES}".replace('"{}"', '"{ }"'))
    assert command(*again)[0] == 0
    called = calls.read_text()
    assert all(f"--workdir={tiny}/{arm}/seed_0" in called for arm in ("first", "again", "student"))
    assert f"--workdir={tiny}/apart" not in called and not (tiny / "student" / "seed_0" / "checkpoints").exists()


def test_an_arms_weights_are_those_that_it_was_scored_by(tmp_path):
    arms = {
        "teacher": Arm("configs/ssltm_mean_teacher.py:demo"),
        "again": Evaluated("teacher", {"evaluate.flip": True}),
        "student": Arm("configs/ssltm.py:demo", labels_of="teacher"),
    }
    _, again, student = make_runs(tmp_path, Study("", "mIoU", arms, ()), seeds=1)
    for command in (next(again.commands()), next(student.commands())):
        assert {"--config.init_from_key=ema", "--config.evaluate.weights=trained"} <= set(command.arguments)


def test_two_at_once_are_refused(study, command, tmp_path):
    (tmp_path / "tiny").mkdir()
    with locks.alone(tmp_path / "tiny", [2]) as held:
        assert [os.get_inheritable(lock) for lock in held] == [False]
        for more in ([], ["--seed=2"]):
            status, _, errors = command("--study=tiny", "--seeds=3", *more, f"--output={tmp_path}")
            assert status == 2 and f"Another process works on seed 2 in {tmp_path / 'tiny'}" in errors


def test_seeds_that_are_made_beside_each_other_complete_the_results_together(command, again):
    """While another program has seed 2."""
    with locks.alone(again / "tiny", [2]):
        status, output, errors = command("--study=tiny", "--seeds=3", "--seed=1", f"--output={again}")
        assert status == 0 and "0/2 runs" in errors and "2/2 runs" in errors
        found = read(again / "tiny.json")
        assert (found["runs_done"], found["complete"]) == (4, False) and "4 of 6 runs are done" in output
    assert command("--study=tiny", "--seeds=3", "--seed=2", f"--output={again}")[0] == 0
    found = read(again / "tiny.json")
    assert found["complete"] and found["pairs"][0]["seeds"] == [0, 1, 2]


def test_programs_that_begin_together_draw_what_they_share_once(tmp_path):
    """Three processes; the last line of each says how many drawn files it found changed later, which is none."""
    tiny = Study("", "mIoU", {"a": Arm("configs/nce.py:demo")}, (), {**DRAWN, **FEW_DRAWN})
    code = f"""
        import pathlib
        from benchmarks.ablation import drawing, locks
        from benchmarks.ablation.arms import Arm, Study
        from benchmarks.ablation.run import make_runs
        folder = pathlib.Path({str(tmp_path / "tiny")!r})
        with locks.in_turn(folder):
            drawing.draw(make_runs(folder, {tiny!r}, seeds=2))
        print(max(path.stat().st_mtime_ns for path in (folder / "data").rglob("*.array_record*")))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    started = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in started]
    assert [process.returncode for process in started] == [0] * 3 and len(set(said)) == 1


def test_data_that_cannot_be_drawn_is_said_before_anything_is_run(study, command, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ablation, "STUDIES", {"tiny": Study("", "mIoU", {"a": Arm("configs/nce.py:demo")}, (), {**DRAWN, **FEW_DRAWN})}
    )
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "data").touch()
    status, _, errors = command("--study=tiny", f"--output={tmp_path}")
    assert status == 2 and "The data of configs/nce.py:demo could not be drawn" in errors and "Traceback" not in errors
    assert not (tmp_path / "tiny" / "a").exists()


def test_a_file_in_the_folders_place_is_named(study, command, tmp_path):
    (tmp_path / "file").touch()
    status, _, errors = command("--study=tiny", f"--output={tmp_path / 'file'}")
    assert status == 2 and "is a file: expected a folder" in errors


def test_drawn_data_lies_in_the_studys_folder_and_does_not_depend_on_the_seed(tmp_path):
    tiny = Study("", "mIoU", {"a": Arm("configs/nce.py:demo"), "b": Arm("configs/baseline.py:demo")}, (), DRAWN)
    runs = make_runs(tmp_path / "tiny", tiny, seeds=2)
    assert [(run.arm, run.seed) for run in runs] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    for run in runs:
        (command,) = run.commands()
        assert f"--config.data.records={tmp_path}/tiny/data/records" in command.arguments
        assert f"--config.seed={run.seed}" in command.arguments
        assert not any("generate.seed" in argument for argument in command.arguments)
        assert run.fields["data.generate.seed"] == 0


def images_of_step(fields):
    """How many labelled images a step learns from: a decoder may decode some frames of a clip alone."""
    decoder = {name.rpartition(".")[2]: value for name, value in fields.items() if name.startswith("model.decoder.")}
    kind = segmenter.DECODERS[decoder["name"]]
    labelled = fields["train.batch"] * (1 - fields["data.unlabelled_share"])
    return labelled * kind.decoded_frames(ConfigDict(decoder), fields["data.frames"])


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_names_fields_that_its_recipes_have(name, tmp_path):
    runs = make_runs(tmp_path / name, STUDIES[name], seeds=1)
    trained = [run for run in runs if isinstance(run, Training)]
    assert trained and len({images_of_step(run.fields) for run in trained}) == 1
    assert STUDIES[name].pairs and set(sum(STUDIES[name].pairs, ())) <= set(STUDIES[name].arms)
    for run in [*trained, *(run.pretraining for run in trained if run.pretraining)]:
        path, size = run.recipe.split(":")
        config = runpy.run_path(str(definition.ROOT / path))["get_config"](size)
        config.update_from_flattened_dict(run.set_fields)
        checks.check_recipe(config.lock())


def test_networks_of_the_study_of_encoders_are_about_as_large():
    sizes = {}
    for name, arm in STUDIES["encoders"].arms.items():
        _, params, _ = train_state.describe(encoder_recipes.get_config(arm.recipe.split(":")[1]))
        sizes[name] = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert len(sizes) == 10 and max(sizes.values()) < 1.15 * min(sizes.values())


@pytest.mark.parametrize("name", ["swin", "swin_", "mask2former", "resnet_upernet", "demo"])
def test_a_network_that_the_study_does_not_have_is_named(name):
    with pytest.raises(ValueError, match=f"unknown network '{name}': expected .*'swin'.* _mask2former"):
        encoder_recipes.get_config(name)


def test_arms_of_clips_and_of_joint_training_differ_in_what_they_test_alone():
    for name, pair, differing in (
        ("frames", ("gap_8", "gap_1"), {"data.frame_gap"}),
        ("mapping", ("video_alone", "small_crop"), {"model.image_size", "data.augment.base_size", "evaluate.stride"}),
        ("mapping", ("mapped_dropout", "mapped"), {"model.encoder.drop_path"}),
        ("mapping", ("mapped_filtered", "mapped"), {f"data.mixture.coco_stuff{s}.min_mapped" for s in ("", "_val")}),
    ):
        assert fields_that_differ(name, *pair) == differing
    joint = fields_that_differ("mapping", "mapped", "video_alone")
    assert joint and all(field.startswith("data.mixture.") for field in joint)


def fields_that_differ(study, first, second):
    """Of two arms."""
    first, second = (definition.resolved(STUDIES[study])[arm] for arm in (first, second))
    return {field for field in first.keys() | second.keys() if first.get(field) != second.get(field)}


def result(score, *intervals):
    return {"mean": score, "interval": intervals[0], "over_seeds": intervals[1]}


def made_up():
    """Results with every kind of verdict."""
    arms = {
        name: {
            "seeds": [0, 1, 2],
            "scores": {"mIoU": [mean - 0.01, mean, mean + 0.01]},
            "means": {"mIoU": result(mean, [mean - 0.03, mean + 0.03], [mean - 0.02, mean + 0.02])},
        }
        for name, mean in (("a<b", 0.2), ("more", 0.25), ("less", 0.15), ("same", 0.21))
    }
    pairs = []
    for name, interval, over_seeds, settled in (
        ("more", [0.02, 0.08], [0.01, 0.1], True),
        ("less", [-0.08, -0.01], [-0.09, -0.02], True),
        ("same", [0.005, 0.03], [-0.01, 0.03], False),
    ):
        found = result(arms[name]["means"]["mIoU"]["mean"] - 0.2, interval, over_seeds) | {"settled": settled}
        pairs.append({"arm": name, "less": "a<b", "seeds": [0, 1, 2], "differences": {"mIoU": found}})
    return {
        "study": "made_up",
        "claim": "A claim.",
        "decides": "mIoU",
        "complete": False,
        "runs_done": 12,
        "runs_asked_for": 16,
        "arms": arms,
        "pairs": pairs,
        "warnings": ["A warning."],
        "definition": {"arms": dict.fromkeys(arms)},
    }


def test_the_table_has_a_word_for_every_difference():
    text = table.table(made_up())
    rows = {line.split("  ")[0]: " ".join(line.split()) for line in text.splitlines()}
    assert "3 +5.00 +2.00 to +8.00 +1.00 to +10.00 higher" in rows["more - a<b"]
    assert "lower" in rows["less - a<b"] and "open" in rows["same - a<b"]
    assert "20.00" in rows["a<b"] and "! A warning." in rows and "! 12 of 16 runs are done." in rows


def test_the_picture_names_what_each_arm_is_compared_with():
    found = made_up()
    found["pairs"][1]["less"] = "same"
    texts = [shape.text for shape in xml.fromstring(picture.picture(found)) if shape.tag.endswith("text")]
    assert {"mIoU: difference to the arm named, points", "+5.00 to a<b", "-5.00 to same"} <= set(texts)


def page_of(tmp_path, **studies):
    """The page made of such results."""
    (tmp_path / "results").mkdir()
    for name, found in studies.items():
        (tmp_path / "results" / f"{name}.json").write_text(json.dumps(found) if isinstance(found, dict) else found)
    (tmp_path / "results" / "made_up.md").write_text("What to make of it.\n")
    return page.write(tmp_path / "results", tmp_path).read_text()


def whole():
    """Results of a whole study, as they are written."""
    found = made_up() | {"complete": True, "runs_done": 12, "date": "2026-11-26", "versions": {"jax": "0.10.2"}}
    for arm in found["arms"].values():
        arm["runs"] = [{"seconds": 3600.0}] * 3
    return found


def test_the_page_shows_every_study_with_its_words_and_its_picture(tmp_path):
    text = page_of(tmp_path, made_up=whole(), other=whole() | {"study": "other"})
    assert text.index("## made_up") < text.index("What to make of it.") < text.index("## other")
    assert "12 runs, 12.0 hours by the clock, 2026-11-26" in text and "Note: A warning." in text
    assert "| more less a<b | +5.00 | +2.00 to +8.00 | +1.00 to +10.00 | higher |  | - | - | - |" in text
    assert (tmp_path / "studies" / "made_up.svg").exists() and "(studies/other.svg)" in text
    assert "not run yet" not in text


def test_the_page_has_differences_in_vc8_with_their_intervals(tmp_path):
    found = whole()
    found["pairs"][0]["differences"]["VC8"] = result(-0.012, [-0.02, 0.001], [-0.03, 0.004])
    text = page_of(tmp_path, made_up=found)
    assert "| VC8 | VC8: 95 %, seeds and videos | VC8: 95 %, seeds |" in text
    assert "| higher |  | -1.20 | -2.00 to +0.10 | -3.00 to +0.40 |" in text


def test_a_study_that_vc8_decides_has_it_once(tmp_path):
    found = whole() | {"decides": "VC8"}
    for about in found["arms"].values():
        about["scores"], about["means"] = ({"VC8": x["mIoU"]} for x in (about["scores"], about["means"]))
    for pair in found["pairs"]:
        pair["differences"] = {"VC8": pair["differences"]["mIoU"]}
    assert "| difference | VC8 | 95 %, seeds and videos | 95 %, seeds | verdict | seeds to decide |\n" in page_of(
        tmp_path, made_up=found
    )


def test_the_page_says_which_arms_were_not_run(tmp_path):
    found = whole()
    found["definition"]["arms"] |= {"one": None, "other": None}
    text = page_of(tmp_path, made_up=found)
    assert "Note: not run yet: one, other." in text and "--arms=a<b,more,less,same --seeds=3" in text


def test_how_many_seeds_would_decide_is_where_the_interval_leaves_0_out():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=4)
    differences = 0.02 + 0.05 * (drawn - drawn.mean()) / drawn.std(ddof=1)  # Of mean 0.02 and deviation 0.05.
    over_seeds = stats.t.interval(0.95, 3, differences.mean(), stats.sem(differences))
    found = page.seeds_to_decide(differences.mean(), over_seeds, 4)
    half = lambda seeds: stats.t.ppf(0.975, seeds - 1) * 0.05 / np.sqrt(seeds)
    assert half(found) < 0.02 <= half(found - 1)
    assert page.seeds_to_decide(0.0, over_seeds, 4) is None


@pytest.mark.parametrize(
    ("results", "said"),
    [({}, "holds no results"), ({"a": "{"}, "a.json is damaged"), ({"a": made_up()}, "12 of 16 runs")],
    ids=["none", "damaged", "half of a study"],
)
def test_a_page_of_results_that_are_not_whole_is_refused(tmp_path, results, said):
    with pytest.raises(UserError, match=said):
        page_of(tmp_path, **results)


def test_the_page_is_made_of_the_results_that_are_here(tmp_path):
    made = page.write(page.RESULTS, tmp_path)
    assert made.read_text() == (page.DOCS / page.PAGE).read_text()
    for path in (page.DOCS / page.PICTURES).iterdir():
        assert path.read_text() == (tmp_path / page.PICTURES / path.name).read_text()


def test_the_picture_is_whole_and_shows_every_seed(tmp_path):
    root = xml.fromstring(picture.picture(made_up()))
    shapes = [shape.tag.rpartition("}")[2] for shape in root]
    texts = [shape.text for shape in root if shape.tag.endswith("text")]
    assert shapes.count("circle") == 12
    assert {"a<b", "more", "mIoU in per cent", "mIoU: difference to a<b, points", "+5.00", "-5.00"} <= set(texts)
    for shape in root:
        if shape.tag.endswith("circle"):
            assert picture.PANELS[0][0] <= float(shape.get("cx")) <= picture.PANELS[0][1]
