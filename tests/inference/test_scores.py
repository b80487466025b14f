"""Scores on disk: what half precision and cropping keep, sizes stated beforehand, damage."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest

from tests.inputs import saved_scores
from vspw_jax.console.errors import UserError
from vspw_jax.data import records
from vspw_jax.evaluation import predicted_videos
from vspw_jax.inference import ensemble, scores
from vspw_jax.inference.recorded import recorded

SCORE = np.random.default_rng(0).dirichlet(np.ones(9) / 4, (6, 7)).astype(np.float32)


def compact(top):
    return scores.Compact(**{name: np.asarray(x) for name, x in scores.compress(jnp.asarray(SCORE), top).items()})


def saved(folder, top=3):
    writer = scores.Writer(folder, {"recipe": "r"}, 9, top)
    writer.enter("v", "1", SCORE.shape[:2])
    writer.save("v", "1", compact(top))
    writer.close()
    return scores.Reader(folder)


@pytest.mark.parametrize("top", [1, 3, 8, 9])
def test_the_best_classes_and_the_sum_of_a_pixel_are_kept(tmp_path, top):
    found = saved(tmp_path, top).frame("v", "1").expand(9)
    assert found.shape == (6, 7, 9) and found.dtype == np.float32
    order = np.argsort(-SCORE, axis=-1, kind="stable")
    best, others = order[..., :top], order[..., top:]
    pick = lambda array, ids: np.take_along_axis(array, ids, axis=-1)
    np.testing.assert_allclose(pick(found, best), pick(SCORE, best), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=2e-3)
    if others.size:
        # What is not kept shares what is left evenly.
        expected = pick(SCORE, others).mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(pick(found, others), np.broadcast_to(expected, others.shape), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("tops", [(3, 2), (1, 1), (9, 2)])
def test_candidates_give_every_rule_what_all_classes_would(tops):
    other = np.random.default_rng(1).dirichlet(np.ones(9) / 4, (6, 7)).astype(np.float32)
    fields = [scores.compress(jnp.asarray(score), top) for score, top in zip((SCORE, other), tops, strict=True)]
    compacts = [scores.Compact(**{name: np.asarray(x) for name, x in of.items()}) for of in fields]
    whole = [of.expand(9) for of in compacts]
    classes, few = scores.candidates(compacts, 9)
    assert (classes is None) == (9 in tops) and few[0].shape[-1] == (9 if 9 in tops else sum(tops))
    for weight in (0, 0.1, 0.5, 1):
        weights = (weight, 1 - weight)
        np.testing.assert_array_equal(
            ensemble.weighted_sum(few, weights, classes), ensemble.weighted_sum(whole, weights)
        )
    np.testing.assert_array_equal(ensemble.vote(few, classes), ensemble.vote(whole))


@pytest.mark.parametrize("top", [3, 9])
def test_no_file_is_larger_than_was_said(tmp_path, top):
    saved(tmp_path, top)
    size = (tmp_path / "v" / "1.npz").stat().st_size
    stated = scores.frame_bytes(6, 7, 9, top)
    assert stated - scores.OVERHEAD < size <= stated


def test_a_frame_of_480p_takes_what_the_message_says():
    assert scores.frame_bytes(480, 853, 124, 4) / 2**20 == pytest.approx(5.5, abs=0.05)


def test_room_is_looked_for_and_what_is_overwritten_counts_as_free(tmp_path, fill_up):
    saved(tmp_path)
    held = (tmp_path / "v" / "1.npz").stat().st_size
    fill_up(1000)
    assert "take up to 0.00 GiB" in scores.check_room(tmp_path, held + 1000, "move")
    with pytest.raises(UserError, match="(?s)No room.*move.*top_classes"):
        scores.check_room(tmp_path, held + 1001, "move")
    assert scores.check_room(tmp_path / "not" / "there", 1000, "move")


def test_scores_that_are_not_whole_or_damaged_are_named(tmp_path):
    with pytest.raises(UserError, match="holds no whole scores.*save_scores=True"):
        scores.Reader(tmp_path)
    reader = saved(tmp_path)
    path = tmp_path / "v" / "1.npz"
    content = path.read_bytes()
    for damaged in (b"", b"junk", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="1.npz cannot be read"):
            reader.frame("v", "1")
    path.unlink()
    with pytest.raises(UserError, match="1.npz cannot be read"):
        reader.frame("v", "1")
    path.write_bytes(content)
    metadata = json.loads((tmp_path / "scores.json").read_text())
    (tmp_path / "scores.json").write_text(json.dumps({**metadata, "videos": {"v": {"1": [6, 8]}}}))
    with pytest.raises(UserError, match=r"shape \(6, 7, 3\), scores.json says \(6, 8, 3\)"):
        scores.Reader(tmp_path).frame("v", "1")
    for damaged in ("{", json.dumps({**metadata, "format": 2}), "[]"):
        (tmp_path / "scores.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged or of another version"):
            scores.Reader(tmp_path)


@pytest.mark.parametrize(("top", "name"), [(3, "values"), (3, "rest"), (9, "values")])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(tmp_path, top, name, value):
    reader = saved(tmp_path, top)
    saved_scores.with_one(tmp_path / "v" / "1.npz", np.finfo(np.float16).max, name)
    assert reader.frame("v", "1").values.shape == (6, 7, top)
    saved_scores.with_one(tmp_path / "v" / "1.npz", value, name)
    with pytest.raises(UserError, match="1.npz holds NaN or infinity"):
        list(reader.strips("v", "1", 2))


@pytest.mark.parametrize("top", [3, 9])
@pytest.mark.parametrize("rows", [1, 4, 6, 100])
def test_strips_are_the_frame(tmp_path, top, rows):
    reader = saved(tmp_path, top)
    whole, strips = reader.frame("v", "1"), list(reader.strips("v", "1", rows))
    assert [strip.values.shape[0] for strip in strips] == [min(rows, 6 - start) for start in range(0, 6, rows)]
    for name, part in vars(whole).items():
        found = [getattr(strip, name) for strip in strips]
        if part is None:
            assert found == [None] * len(strips)
        else:
            np.testing.assert_array_equal(np.concatenate(found), part)
            np.testing.assert_array_equal(part, getattr(compact(top), name))


def test_an_array_that_is_not_as_it_was_written_is_refused(tmp_path):
    reader, path = saved(tmp_path), tmp_path / "v" / "1.npz"
    fields = vars(compact(3))
    for damaged, said in (
        ({**fields, "more": fields["rest"]}, "more"),
        ({**fields, "classes": fields["classes"][:3]}, "cannot reshape"),
        ({"classes": fields["classes"]}, "values"),
        ({**fields, "values": np.asfortranarray(fields["values"])}, "columns"),
        ({**fields, "rest": np.array([{"harm": 1}] * 42, object).reshape(6, 7)}, ""),
    ):
        np.savez(path, **damaged)
        with pytest.raises(UserError, match=f"1.npz cannot be read: .*{said}"):
            list(reader.strips("v", "1", 2))


def test_writing_anew_takes_back_that_they_are_whole(tmp_path):
    saved(tmp_path)
    scores.Writer(tmp_path, {}, 9, 3)
    with pytest.raises(UserError, match="no whole scores"):
        scores.Reader(tmp_path)


class Stub:
    """A predictor whose one kept class is the red channel over 8."""

    batch, num_classes, top_classes, remembers = 4, 124, 1, False

    def __init__(self, save_scores):
        self.options = types.SimpleNamespace(save_scores=save_scores, flow_weight=0.0)

    def identity(self):
        return {"recipe": "stub"}

    def start(self, images):
        label = np.stack([image[..., 0] // 8 for image in images])
        kept = [scores.Compact(of[..., None] * np.float16(0) + 1, of[..., None], of * np.float16(0)) for of in label]
        return types.SimpleNamespace(labels=lambda: label, scores=lambda: kept)


def test_evaluating_keeps_the_scores_of_a_split(generated_records, tmp_path, capsys):
    frames = records.Frames(generated_records, "val")
    with recorded(Stub(save_scores=True), frames, frames.videos, tmp_path) as recording:
        predicted = [list(found) for _, found in predicted_videos.predict(recording, frames, frames.videos, 2)]
    assert "take up to 0.00 GiB" in capsys.readouterr().out
    reader = scores.Reader(tmp_path)
    assert reader.identity == {"recipe": "stub", "split": "val", "fingerprint": frames.fingerprint}
    assert list(reader.videos) == [video.name for video in frames.videos]
    for video, found in zip(frames.videos, predicted, strict=True):
        for number, (_, image, _, prediction) in enumerate(found):
            name = frames[video.start + number]["frame"]
            np.testing.assert_array_equal(prediction, image[..., 0] // 8)
            np.testing.assert_array_equal(reader.frame(video.name, name).classes[..., 0], prediction)
    untouched = Stub(save_scores=False)
    with recorded(untouched, frames, frames.videos, tmp_path / "none") as recording:
        assert recording is untouched and not (tmp_path / "none").exists()
