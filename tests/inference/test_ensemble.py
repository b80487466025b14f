"""Ensembles from saved scores: each rule against its definition pixel by pixel, and the program that applies them."""

import collections
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vspw_jax import ensemble as program
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.evaluation import sweep, sweep_picture
from vspw_jax.inference import ensemble, scores
from vspw_jax.metrics.confusion import ConfusionMatrix


@pytest.fixture(autouse=True)
def strips_of_a_few_rows(monkeypatch):
    monkeypatch.setattr(program, "STRIP", 100)


def drawn(seed, size=(13, 17, 6), members=3):
    return np.random.default_rng(seed).integers(0, 4, (members, *size)).astype(np.float32) / 4


@pytest.mark.parametrize("part", [1, 50, 1 << 14])
def test_each_rule_equals_its_definition(monkeypatch, part):
    """Scores of few values, so that there are ties of every kind."""
    monkeypatch.setattr(ensemble, "PART", part)
    score_MHWK, weights = drawn(0), (0.5, 0.25, 0.125)
    summed, meant, voted = (
        ensemble.weighted_sum(score_MHWK, weights),
        ensemble.mean(score_MHWK),
        ensemble.vote(score_MHWK),
    )
    ties = 0
    for place in np.ndindex(13, 17):
        of_pixel = score_MHWK[(slice(None), *place)].tolist()
        totals = [sum(member) for member in zip(*of_pixel, strict=True)]
        weighted = [sum(w * s for w, s in zip(weights, member, strict=True)) for member in zip(*of_pixel, strict=True)]
        assert summed[place] == weighted.index(max(weighted))
        assert meant[place] == totals.index(max(totals))
        votes = collections.Counter(member.index(max(member)) for member in of_pixel)
        most = sorted(class_id for class_id, count in votes.items() if count == max(votes.values()))
        assert voted[place] == max(most, key=lambda class_id: totals[class_id])
        ties += len(most) > 1
    assert ties > 20


@pytest.mark.parametrize("part", [50, 1 << 14])
def test_each_class_is_scored_by_its_models(monkeypatch, part):
    monkeypatch.setattr(ensemble, "PART", part)
    score_MHWK = drawn(0)
    counts = np.array([[1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0]], bool)
    found = ensemble.by_class(score_MHWK, counts)
    for place in np.ndindex(13, 17):
        of_pixel = score_MHWK[(slice(None), *place)]
        means = [of_pixel[counts[:, k], k].mean(dtype=np.float64) for k in range(6)]
        assert found[place] == min(k for k in range(6) if means[k] > max(means) - 1e-6)


def test_a_majority_wins_against_one_that_is_sure():
    score = np.array([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.0, 0.0, 1.0]])[:, None, None]
    assert (ensemble.vote(score), ensemble.mean(score)) == (0, 2)


def test_the_weights_of_a_sweep():
    assert sweep.weights("0:1:0.25") == [0, 0.25, 0.5, 0.75, 1]
    assert len(sweep.weights("0:1:0.05")) == 21 and sweep.weights("0.4:0.6:0.1") == [0.4, 0.5, 0.6]
    for text in ("0:1", "a:b:c", "0:1:0", "1:0:0.1", "0:2:0.5", "0:1:0.3", "0:1:-0.1", "0:inf:0.1", "nan:1:0.1"):
        with pytest.raises(UserError, match="expected START:STOP:STEP"):
            sweep.weights(text)


@pytest.mark.parametrize("members", [2, 3])
def test_a_sweep_equals_scoring_every_weight_by_itself(members):
    label, score = np.random.default_rng(1).integers(0, 6, (13, 17)), drawn(2, members=members)
    tried = sweep.along((1 / members,) * members, 0, [0, 0.3, 1])
    found = sweep.Sweep(tried, 6)
    found.add(label, score)
    for row, weight in zip(found.rows(), [0, 0.3, 1], strict=True):
        confusion = ConfusionMatrix(6)
        others = sum(score[1:]) / (members - 1)
        confusion.add(label, (weight * score[0] + (1 - weight) * others).argmax(axis=-1))
        assert row["mIoU"] == pytest.approx(confusion.scores()["mIoU"], abs=0.02)  # Ties break by rounding.
        assert row["weights"][0] == weight and sum(row["weights"]) == pytest.approx(1)
    lines = sweep.table(found.rows()).splitlines()
    assert len(lines) == 4 and sum("best" in line for line in lines) == 1


def test_the_others_share_the_rest_as_they_did():
    assert sweep.along((0.5, 0.2, 0.3), 0, [0, 0.5, 1]) == [(0, 0.4, 0.6), (0.5, 0.2, 0.3), (1, 0, 0)]
    assert sweep.along((0, 1, 0), 1, [0.5]) == [(0.25, 0.5, 0.25)]


def searched(models, score, values, search=None, passes=None):
    """A search of a made-up score of weights, to its end or so many passes."""
    search = search or sweep.Search(models, values)
    while (member := search.member()) is not None and (passes is None or len(search.passes) < passes):
        rows = [{"weights": list(one), "mIoU": score(one)} for one in search.tried(member)]
        search.add([row | {"fwIoU": 0.0, "pixel_accuracy": 0.0} for row in rows])
    return search


def peak(weights):
    """Highest at 0.2, 0.3, 0.5, with the weights in the way of each other."""
    x, y, _ = weights
    return 1 - (x - 0.2) ** 2 - (y - 0.3) ** 2 - 0.5 * (x - 0.2) * (y - 0.3)


def test_three_models_are_swept_in_turn_until_a_round_brings_nothing():
    values = sweep.weights("0:1:0.05")
    found = searched(3, peak, values)
    assert found.best["weights"] == pytest.approx((0.2, 0.3, 0.5), abs=0.06) and len(found.passes) % 3 == 0
    before, last = ([row["mIoU"] for rows in part for row in rows] for part in (found.passes[:-3], found.passes[-3:]))
    assert max(last) <= max(before) or len(found.passes) == 3 * sweep.MOST_ROUNDS
    assert sweep_picture.picture(found, ("A&B", "C", "D")).count("<circle") == 3 * len(values)
    assert len(searched(2, lambda weights: weights[0], values).passes) == 1


def test_equal_weights_win_where_nothing_beats_them():
    even = lambda weights: 1 - sum((weight - 1 / 3) ** 2 for weight in weights)
    found = searched(3, even, sweep.weights("0:1:0.5"))
    assert found.best["weights"] == pytest.approx((1 / 3,) * 3) and found.best["mIoU"] == pytest.approx(1)


def test_a_search_that_was_stopped_goes_on():
    values, about = sweep.weights("0:1:0.1"), [{"scores": name} for name in "abc"]
    whole, half = searched(3, peak, values), searched(3, peak, values, passes=2)
    text = half.to_json(about)
    assert searched(3, peak, values, sweep.from_json(text, about, values)).passes == whole.passes
    for other in (
        sweep.from_json(text, about, values[:-1]),
        sweep.from_json(text, [*about[:2], {"scores": "d"}], values),
        sweep.from_json(text[:50], about, values),
        sweep.from_json("[]", about, values),
    ):
        assert other.passes == []


def save(folder, frames, seed, top, sharpness, double_softmax=False):
    """Scores of a split: right and sure of it where a draw says so, else unsure between a wrong class and the right."""
    writer = scores.Writer(folder, {"fingerprint": frames.fingerprint, "double_softmax": double_softmax}, 124, top)
    rng = np.random.default_rng(seed)
    for video in frames.videos:
        for number in range(video.start, video.start + video.count):
            record = frames[number]
            label = frames.label(record)
            right, other = rng.random(label.shape) < 0.6, rng.integers(0, 124, label.shape)
            score = rng.random((*label.shape, 124), np.float32) * 0.3 / sharpness
            for ids, value in ((other, 0.6), (label % 124, np.where(right, 1.0, 0.55))):
                np.put_along_axis(score, ids[..., None].astype(np.intp), np.float32(value)[..., None], axis=-1)
            order = np.argsort(-score, axis=-1)[..., :top]
            values = np.take_along_axis(score, order, axis=-1)
            rest = (score.sum(axis=-1) - values.sum(axis=-1)) / (124 - top)
            writer.enter(video.name, record["frame"], label.shape)
            writer.save(
                video.name,
                record["frame"],
                scores.Compact(values.astype(np.float16), order.astype(np.uint8), rest.astype(np.float16)),
            )
    writer.close()
    return folder


def spoil(folder, output, videos):
    """A copy of a model's scores in which those of some videos are turned upside down."""
    shutil.copytree(folder, output)
    for path in (path for video in videos for path in (output / video).iterdir()):
        with np.load(path) as found:
            arrays = {name: found[name][::-1] for name in found}
        np.savez(path, **arrays)
    return output


@pytest.fixture(scope="module")
def members(generated_records, tmp_path_factory):
    """Scores of two made-up models on the first split, cropped differently."""
    folder, frames = tmp_path_factory.mktemp("members"), records.Frames(generated_records, "val")
    return [save(folder / "a", frames, 1, 4, 1), save(folder / "b", frames, 2, 2, 2)]


def arguments(members, output, *more):
    return [*(f"--scores={member}" for member in members), f"--output={output}", *map(str, more)]


def test_the_program_sweeps_and_leaves_the_best(members, generated_records, tmp_path, capsys):
    program.main(arguments(members, tmp_path, "--sweep=0:1:0.25", f"--records={generated_records}"))
    printed = capsys.readouterr().out
    assert "chosen on the same split" in printed and "mIoU" in printed and "best" in printed
    found = json.loads((tmp_path / "sweep.json").read_text())
    (rows,) = found["passes"]
    by_weight = {row["weights"][0]: row["mIoU"] for row in rows}
    assert found["best"]["mIoU"] == max(by_weight.values()) > max(by_weight[0], by_weight[1])
    about = json.loads((tmp_path / "ensemble.json").read_text())
    assert about["weights"] == found["best"]["weights"] and about["scores"]["mIoU"] == found["best"]["mIoU"]
    assert (tmp_path / "sweep.svg").read_text().startswith("<svg")

    frames, readers = records.Frames(generated_records, "val"), [scores.Reader(member) for member in members]
    for number in range(len(frames)):
        record = frames[number]
        expected = ensemble.weighted_sum(
            [reader.frame(record["video"], record["frame"]).expand(124) for reader in readers], about["weights"]
        )
        with Image.open(tmp_path / "masks" / record["video"] / f"{record['frame']}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), expected)


def miou(frames, readers, videos, weights):
    """Of some videos, with one set of weights."""
    confusion = ConfusionMatrix(124)
    for video in (video for video in frames.videos if video.name in videos):
        for number in range(video.start, video.start + video.count):
            record = frames[number]
            found = [reader.frame(video.name, record["frame"]).expand(124) for reader in readers]
            confusion.add(frames.label(record), ensemble.weighted_sum(found, weights))
    return confusion.scores()["mIoU"]


def test_each_half_of_the_videos_has_the_weights_that_are_best_on_the_other(
    members, generated_records, tmp_path, capsys
):
    """Each model is spoilt in one half: what is best on the other half is worst there, and scores less."""
    frames, names = records.Frames(generated_records, "val"), sorted(scores.Reader(members[0]).videos)
    spoilt = [spoil(member, tmp_path / member.name, names[at::2]) for at, member in enumerate(members)]
    options = ["--sweep=0:1:0.5", "--halves", f"--records={generated_records}"]
    program.main(arguments(spoilt, tmp_path / "out", *options))
    about = json.loads((tmp_path / "out" / "ensemble.json").read_text())
    readers = [scores.Reader(member) for member in spoilt]
    assert [half["videos"] for half in about["halves"]] == [names[::2], names[1::2]] and about["weights"] is None
    for half, other in (about["halves"], about["halves"][::-1]):
        tried = {first: miou(frames, readers, other["videos"], (first, 1 - first)) for first in (0, 0.5, 1)}
        assert half["weights"][0] == max(tried, key=tried.get)
        for video in half["videos"]:
            for frame in readers[0].videos[video]:
                expected = ensemble.weighted_sum([r.frame(video, frame).expand(124) for r in readers], half["weights"])
                with Image.open(tmp_path / "out" / "masks" / video / f"{frame}.png") as mask:
                    np.testing.assert_array_equal(np.asarray(mask), expected)
    assert about["halves"][0]["weights"] != about["halves"][1]["weights"]
    assert "chosen on other videos of the same split" in capsys.readouterr().out
    program.main(arguments(spoilt, tmp_path / "same", *options[::2]))
    same = json.loads((tmp_path / "same" / "ensemble.json").read_text())
    assert about["scores"]["mIoU"] < same["scores"]["mIoU"] and same["halves"] is None


def test_halves_take_every_other_video_by_name():
    assert sweep.halves({"c": 1, "a": 2, "d": 3, "b": 4, "e": 5}) == (["a", "c", "e"], ["b", "d"])
    with pytest.raises(UserError, match="--halves: the scores are of 1 video: expected two or more"):
        sweep.halves(["a"])


def test_the_program_sweeps_three_models(members, generated_records, tmp_path, capsys):
    three = arguments([*members, members[0]], tmp_path, "--sweep=0:1:0.5", f"--records={generated_records}")
    program.main(three)
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert found["done"] and len(found["passes"]) % 3 == 0 and "pass 3, over the weight of" in printed
    assert json.loads((tmp_path / "ensemble.json").read_text())["scores"]["mIoU"] == found["best"]["mIoU"]
    program.main(three)
    assert "pass" not in capsys.readouterr().out  # Nothing is swept again.
    stopped = found | {"passes": found["passes"][:2], "done": False}
    (tmp_path / "sweep.json").write_text(json.dumps(stopped))
    program.main(three)
    printed = capsys.readouterr().out
    assert "pass 3, over the weight of" in printed and "pass 2, over" not in printed
    assert json.loads((tmp_path / "sweep.json").read_text()) == found


@pytest.mark.parametrize("method", ["mean", "vote"])
def test_the_program_without_labels(members, tmp_path, capsys, method):
    program.main(arguments([*members, members[0]], tmp_path, f"--method={method}"))
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 30
    assert json.loads((tmp_path / "ensemble.json").read_text())["method"] == method


def test_members_that_disagree_are_listed(members, tmp_path):
    def other(**changes):
        metadata = json.loads((members[0] / "scores.json").read_text())
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "scores.json").write_text(json.dumps({**metadata, **changes}))
        return folder

    videos = scores.Reader(members[0]).videos
    video, frame = next((video, frame) for video in videos for frame in videos[video])
    fewer = {name: dict(list(found.items())[1:]) for name, found in videos.items()}
    resized = {**videos, video: {**videos[video], frame: [5, 6]}}
    for changes, message in (
        ({"classes": 150}, "classes of .*: 124 and 150"),
        ({"videos": fewer}, f"3 frames are not in .*{video}/{frame}"),
        ({"videos": resized}, f"{video}/{frame} is 64x48 in .*, 6x5 in"),
    ):
        with pytest.raises(UserError, match=message):
            program.main(arguments([members[0], other(**changes)], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_the_user_must_mend(members, generated_records, tmp_path, capsys):
    data = f"--records={generated_records}"
    for given, more, message in (
        (members[:1], [], "two members or more"),
        ([members[0], tmp_path], [], "holds no whole scores"),
        (members, ["--weights=1,2,3"], "3 weights for 2 --scores"),
        (members, ["--weights=1.5,-0.5"], "no negative one"),
        (members, ["--weights=nan,1"], "expected numbers"),
        (members, ["--weights=1,inf"], "expected numbers"),
        (members, ["--method=vote", "--weights=1,2"], "for --method=sum, not for vote"),
        (members, ["--method=mean", "--sweep=0:1:0.5", data], "for --method=sum, not for mean"),
        (members, ["--sweep=0:1:0.5"], "name the --records=DIR"),
        (members, ["--sweep=0:1:0.5", "--weights=1,2", data], "--sweep searches the weights"),
        (members, ["--halves", "--weights=1,2", data], "--halves says on which videos --sweep"),
        (members, ["--split=val"], "--split=val is a split of --records: name these"),
        (members, [data, "--split=train"], "are not scores of split 'train'"),
    ):
        with pytest.raises(UserError, match=message):
            program.main(arguments(given, tmp_path / "out", *more))


@pytest.fixture(scope="module")
def whole_members(members, generated_records, tmp_path_factory):
    """The same models' scores of all classes."""
    folder, frames = tmp_path_factory.mktemp("whole_members"), records.Frames(generated_records, "val")
    made = []
    for name, member in zip("ab", members, strict=True):
        writer = scores.Writer(folder / name, {"fingerprint": frames.fingerprint}, 124, 124)
        reader = scores.Reader(member)
        for video, named in reader.videos.items():
            for frame in named:
                score = reader.frame(video, frame).expand(124)
                writer.enter(video, frame, score.shape[:2])
                writer.save(video, frame, scores.Compact(score.astype(np.float16)))
        writer.close()
        made.append(folder / name)
    return made


def test_the_program_takes_groups_of_classes(whole_members, generated_records, tmp_path):
    """Everything of the first model but "sky", which the second one alone scores."""
    frames = records.Frames(generated_records, "val")
    names = frames.classes.names
    sky = names.index("sky")
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps([[name for name in names if name != "sky"], ["sky"]]))
    program.main(arguments(whole_members, tmp_path / "out", "--method=by_class", f"--groups={groups}"))
    assert json.loads((tmp_path / "out" / "ensemble.json").read_text())["groups"] == json.loads(groups.read_text())
    first, second = (scores.Reader(member) for member in whole_members)
    for video, found in first.videos.items():
        for frame in found:
            score = first.frame(video, frame).expand(124)
            score[..., sky] = second.frame(video, frame).expand(124)[..., sky]
            with Image.open(tmp_path / "out" / "masks" / video / f"{frame}.png") as mask:
                np.testing.assert_array_equal(np.asarray(mask), score.argmax(axis=-1))


def test_groups_that_do_not_fit_are_refused(members, whole_members, tmp_path):
    groups = tmp_path / "groups.json"
    for given, content, more, message in (
        (whole_members, None, ["--method=by_class"], "needs --groups=FILE"),
        (whole_members, "{", ["--method=by_class", f"--groups={groups}"], "cannot be read as JSON"),
        (whole_members, '[["sky"]]', ["--method=by_class", f"--groups={groups}"], "expected 2 lists of names"),
        (whole_members, '["sky", "wall"]', ["--method=by_class", f"--groups={groups}"], "expected 2 lists of names"),
        (whole_members, '[["sky"], [["wall"]]]', ["--method=by_class", f"--groups={groups}"], "do not have: ..wall"),
        (whole_members, '[["sky"], ["wal"]]', ["--method=by_class", f"--groups={groups}"], "do not have: wal"),
        (
            members,
            '[["sky"], ["wall"]]',
            ["--method=by_class", f"--groups={groups}"],
            "--config.evaluate.top_classes=0",
        ),
        (members, "[]", [f"--groups={groups}"], "--groups is for --method=by_class, not for sum"),
        (members, "[]", ["--method=by_class", "--weights=1,2"], "for --method=sum, not for by_class"),
    ):
        if content is not None:
            groups.write_text(content)
        with pytest.raises(UserError, match=message):
            program.main(arguments(given, tmp_path / "out", *more))


def test_members_with_and_without_the_second_softmax_are_noted(members, tmp_path, generated_records, capsys):
    frames = records.Frames(generated_records, "val")
    other = save(tmp_path / "c", frames, 3, 1, 1, double_softmax=True)
    program.main(arguments([members[0], other], tmp_path / "out"))
    assert "second softmax" in capsys.readouterr().err
