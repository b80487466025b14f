"""The training stream is a function of (seed, step), on any number of hosts, threads and processes; mixtures too."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import nce
from data_prep import folder, vspw
from vspw_jax.classes.vspw import VOID
from vspw_jax.console.errors import UserError
from vspw_jax.data import mixture, pipeline, records, transforms

CROP = (32, 32)
SEED = 3


@pytest.fixture
def config(generated_records):
    """Two-frame clips of five videos of ten frames, augmented."""
    config = nce.get_config("demo").data
    config.records, config.epoch, config.frame_gap = str(generated_records), "frame", 1
    config.augment.base_size = (64, 48)
    return config


def add_images(config, image_records, **fields):
    options = dict(records=str(image_records), split="train", weight=1.0, epoch="frame", frame_gap=1)
    options |= dict(fits=("exact",), min_mapped=0.0, denominator="all")
    config.mixture.images = ConfigDict({**options, **fields})
    return config


@pytest.fixture
def numbered(monkeypatch):
    """Frames show their record numbers, those of `images` from 100 on, and are not augmented."""

    def label(self, record):
        number = record if len(self) != 7 else record + 100
        return np.full((32, 32), number, np.uint8)

    monkeypatch.setattr(records.Frames, "__getitem__", lambda self, number: number)
    monkeypatch.setattr(records.Frames, "label", label)
    monkeypatch.setattr(records.Frames, "image", lambda self, record, label, shrink: np.stack([label] * 3, axis=-1))
    plain = ConfigDict(
        dict(base_size=CROP, resize_ratio=(1.0, 1.0), max_class_share=1.0, photometric=False, shrink_in_decoding=True)
    )
    return lambda config: config.update(augment=plain)


def take(config, steps, batch=4, first_step=0, num_hosts=1):
    """Global batches: those of all hosts, concatenated in their order."""
    streams = [
        pipeline.training_batches(config, batch, CROP, SEED, first_step, host, num_hosts) for host in range(num_hosts)
    ]
    parts = [[next(stream) for stream in streams] for _ in range(steps)]
    for stream in streams:
        stream.close()
    return [{name: np.concatenate([part[name] for part in hosts]) for name in hosts[0]} for hosts in parts]


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def numbers(batches):
    """Record numbers of the clips, (clips, T)."""
    return np.concatenate([batch["label_BTHW"][:, :, 0, 0] for batch in batches])


@pytest.mark.parametrize("mixed", [False, True], ids=["one data set", "mixture"])
def test_any_number_of_hosts_has_the_same_global_batches(config, image_records, mixed):
    """Fifteen steps pass the end of an epoch of 50, and of the images' epochs of 7."""
    if mixed:
        add_images(config, image_records, weight=4.0)
    alone = take(config, 15)
    for num_hosts in (2, 4):
        assert_same(take(config, 15, num_hosts=num_hosts), alone)


def test_four_hosts_resumed_as_two_repeat_and_skip_nothing(config, image_records):
    add_images(config, image_records)
    stopped = take(config, 6, num_hosts=4) + take(config, 5, first_step=6, num_hosts=2)
    assert_same(stopped + take(config, 4, first_step=11), take(config, 15))


def test_threads_and_prefetching_do_not_matter(config):
    config.threads, config.prefetch = 1, 1
    alone = take(config, 6)
    config.threads, config.prefetch = 4, 9
    assert_same(take(config, 6), alone)


def test_worker_processes_do_not_matter(config, image_records):
    """What is not random elsewhere must not become so in processes that draw by themselves."""
    add_images(config, image_records, weight=4.0)
    alone = take(config, 7, first_step=2)
    config.workers = 2
    assert_same(take(config, 7, first_step=2), alone)


def test_another_seed_is_another_stream(config):
    (one,) = take(config, 1)
    other = next(pipeline.training_batches(config, 4, CROP, SEED + 1))
    assert not np.array_equal(one["image_BTHWC"], other["image_BTHWC"])


def test_each_epoch_has_every_frame_once_in_an_order_of_its_own(config, numbered):
    numbered(config)
    config.frames = 1
    seen = numbers(take(config, 25))[:, 0]
    epochs = seen[:50].tolist(), seen[50:].tolist()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    assert epochs[0] != epochs[1] and epochs[0] != sorted(epochs[0])


def test_an_epoch_of_videos_has_each_once_at_random_frames(config, numbered):
    numbered(config)
    config.epoch = "video"
    seen = numbers(take(config, 30, batch=5))
    np.testing.assert_array_equal(seen[:, 1], seen[:, 0] + 1)
    np.testing.assert_array_equal(np.sort(seen[:, 0].reshape(30, 5) // 10), np.tile(np.arange(5), (30, 1)))
    assert len(set(seen[:, 0].tolist())) > 25


@pytest.mark.parametrize(("weight", "share"), [(1.0, 3.5 / 53.5), (4.0, 14 / 64)])
def test_a_mixture_draws_elements_by_their_weight_and_packs_images(config, image_records, numbered, weight, share):
    """Images fill a clip's two frames one by one: seven of them make three and a half clips."""
    numbered(config)
    add_images(config, image_records, weight=weight)
    batches = take(config, 60, batch=8)
    seen, is_clip = numbers(batches), np.concatenate([batch["is_clip_B"] for batch in batches])
    np.testing.assert_array_equal(is_clip, (seen < 100).all(axis=1))
    np.testing.assert_array_equal(~is_clip, (seen >= 100).all(axis=1))
    assert 1 - is_clip.mean() == pytest.approx(share, rel=0.05)
    np.testing.assert_array_equal(seen[is_clip][:, 1], seen[is_clip][:, 0] + 1)
    images = seen[~is_clip].ravel()
    for epoch in range(len(images) // 7):
        assert sorted(images[7 * epoch :][:7]) == list(range(100, 107))
    epochs = is_clip.sum() // 50
    counts = np.bincount(seen[is_clip][: 50 * epochs, 0], minlength=50).reshape(5, 10)
    np.testing.assert_array_equal(counts, epochs * np.array([[1] * 8 + [2, 0]] * 5))  # A last frame starts no clip.


def test_labels_of_a_union_are_each_data_sets_own_moved_as_a_whole(config, image_records, tmp_path):
    """The images as a data set of 150 classes of its own: their labels begin where VSPW's end."""
    (tmp_path / "names.json").write_text(json.dumps({number: f"own {number}" for number in range(1, 151)}))
    source, own = image_records.parent / "source", tmp_path / "own"
    folder.convert(source, tmp_path / "names.json", own, void=["0"], hold="ids")
    mapped = take(add_images(config, image_records, weight=7.0), 3)
    config.classes = "union"
    union = take(add_images(config, own, weight=7.0), 3)
    for one, other in zip(mapped, union, strict=True):
        np.testing.assert_array_equal(one["image_BTHWC"], other["image_BTHWC"])
        label, is_images = one["label_BTHW"], ~one["is_clip_B"][:, None, None, None] & (one["label_BTHW"] != 255)
        assert is_images.any() and (label == 255).any()
        np.testing.assert_array_equal(other["label_BTHW"], np.where(is_images, label + 124, label))
    members = mixture.members(config)
    mixture.check_classes(members, 275)
    with pytest.raises(UserError, match=r"holds class \d+, 'own \d+', .* has 124 classes. Set .*num_classes=275"):
        mixture.check_classes(members, 124)


def test_batches_of_all_mixtures_have_the_same_shapes_and_types(config, image_records):
    shapes = []
    for weight in (None, 1.0, 10000.0):
        if weight:
            add_images(config, image_records, weight=weight)
        (batch,) = take(config, 1)
        shapes.append({name: (array.shape, array.dtype) for name, array in batch.items()})
    assert shapes[0] == shapes[1] == shapes[2]
    assert batch["is_clip_B"].sum() <= 1
    assert shapes[0]["is_clip_B"] == ((4,), np.bool_)


def test_single_frames_are_clips_whatever_they_are_from(config, image_records):
    config.frames = 1
    batches = take(add_images(config, image_records, weight=7.0), 3)
    assert all(batch["is_clip_B"].all() and batch["image_BTHWC"].shape == (4, 1, *CROP, 3) for batch in batches)


def test_more_classes_than_the_loss_has_room_for_are_an_error_that_names_the_member(config, image_records):
    members = mixture.members(add_images(config, image_records))
    most = [member.frames.max_classes for member in members]
    members[1].frames.max_classes = max(most) + 1
    mixture.check_capacity(members, max(most) + 1)
    with pytest.raises(UserError, match=f"'images'.*holds {max(most) + 1} classes.*has room for {max(most)}"):
        mixture.check_capacity(members, max(most))


@pytest.mark.parametrize("fields", [dict(train_split="test"), dict(fits=())], ids=["no masks", "no fit"])
def test_data_without_a_labelled_pixel_is_refused(config, fields):
    config.update(fields)
    with pytest.raises(
        UserError, match=r"No pixel of split '\w+' of .* has a class: its \d+ masks are void or missing"
    ):
        mixture.members(config)


def test_single_images_have_no_unlabelled_frame_whatever_the_rule(config, image_records):
    config.update(records=str(image_records), labelled_frames="drawn", unlabelled_share=0.5)
    with pytest.raises(UserError, match="without a label. Of single images each label is kept. Train on videos"):
        mixture.members(config)


def test_images_are_refused_where_frames_must_follow_each_other(config, image_records):
    members = mixture.members(add_images(config, image_records))
    mixture.check_follow(members[:1], "memory_a")
    with pytest.raises(UserError, match="'images'.* holds single images, and the decoder memory_a learns from frames"):
        mixture.check_follow(members, "memory_a")


def test_clips_that_no_video_is_long_enough_for_are_refused(config, image_records):
    members = mixture.members(add_images(config, image_records))
    config.frames = 10
    mixture.check_lengths(members, config)  # Single images have clips of their own.
    config.frames = 11
    with pytest.raises(UserError, match="'main'.*: the longest has 10 frames, and 11 frames 1 apart need 11"):
        mixture.check_lengths(members, config)
    config.update(frames=4, frame_gap=3)
    mixture.check_lengths(mixture.members(config), config)
    config.frames = 5
    with pytest.raises(UserError, match="5 frames 3 apart need 13"):
        mixture.check_lengths(mixture.members(config), config)
    config.reference_distance = (1, 2)  # Which is no neighbour of the four others.
    mixture.check_lengths(mixture.members(config), config)
    config.update(frames=6, chosen="last")
    with pytest.raises(UserError, match="the longest has 10 frames, and 5 frames 3 apart need 13"):
        mixture.check_lengths(mixture.members(config), config)


def test_a_reference_farther_away_than_every_video_is_long_is_refused(config, image_records):
    config.update(frames=2, chosen="last", reference_distance=(9, 60))
    mixture.check_lengths(mixture.members(config), config)
    config.reference_distance = (10, 60)
    with pytest.raises(UserError, match=r"\(10, 60\) asks for: the longest has 10 frames, expected more than 10. Set"):
        mixture.check_lengths(mixture.members(config), config)
    config.records = str(image_records)
    mixture.check_lengths(mixture.members(config), config)  # Single images are another check's.


def test_a_short_video_beside_a_longer_one_is_no_fault(config):
    config.update(frames=5, chosen="last", reference_distance=(5, 60))
    (member,) = mixture.members(config)
    first, *rest = member.frames.videos
    member.frames.videos = (dataclasses.replace(first, count=1), *rest)
    mixture.check_lengths([member], config)
    member.frames.videos = (dataclasses.replace(first, count=5), dataclasses.replace(first, count=1))
    with pytest.raises(UserError, match="the longest has 5 frames, expected more than 5"):
        mixture.check_lengths([member], config)


def test_classes_that_the_network_lacks_are_refused(config, image_records):
    members = mixture.members(add_images(config, image_records))
    highest = max(member.frames.highest_class for member in members)
    mixture.check_classes(members, highest + 1)
    with pytest.raises(UserError, match=f"holds class {highest}, .* but the network has {highest} classes.*=124"):
        mixture.check_classes(members, highest)


def test_what_was_read_is_told_apart_by_its_bytes_and_by_its_class_table(config, image_records):
    members = mixture.members(add_images(config, image_records))
    (main, images) = mixture.identity(members).values()
    assert main.startswith("vspw train, 50 frames, fingerprint ") and images.startswith("vspw train, 7 frames, ")
    members[0].frames.lookup = np.roll(members[0].frames.lookup, 1)
    shifted, same = mixture.identity(members).values()
    assert same == images and shifted != main
    assert shifted.split(", class table")[0] == main.split(", class table")[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(split="dev"), "no split 'dev'"),
        (dict(records="nowhere"), "no converted data at nowhere"),
    ],
    ids=["split", "records"],
)
def test_what_is_wrong_with_a_member_is_named(config, image_records, fields, message):
    with pytest.raises(UserError, match=message):
        mixture.members(add_images(config, image_records, **fields))


POISON = 123
"""A class that nothing else has."""


@pytest.fixture(scope="session")
def poisoned_records(generated_vspw, tmp_path_factory):
    """The records of `config` with one class in all masks but each video's first."""
    folder = tmp_path_factory.mktemp("poisoned")
    shutil.copytree(generated_vspw, folder / "source")
    for masks in sorted((folder / "source" / "data").glob("*/mask")):
        for path in sorted(masks.glob("*.png"))[1:]:
            Image.fromarray(np.full((48, 64), POISON + 1, np.uint8)).save(path)
    vspw.convert(folder / "source", folder / "records")
    return folder / "records"


def sparse(config, path, **fields):
    config.update(records=str(path), labelled_frames="first", unlabelled_share=0.5, chosen="last", **fields)
    return config


def test_withheld_labels_reach_nothing(config, poisoned_records, generated_records, monkeypatch):
    """What is drawn, counted and told of the data is the same whatever they are, and no mask of theirs is decoded."""
    config.frames = 3
    clean = take(sparse(config, generated_records), 10)
    expected = mixture.members(config)
    decoded = []
    decode = records.decode_mask
    monkeypatch.setattr(records, "decode_mask", lambda png, *rest: decoded.append(decode(png, *rest)) or decoded[-1])
    assert_same(take(sparse(config, poisoned_records), 10), clean)
    assert decoded and not any((label == POISON).any() for label in decoded)
    for member, other in zip(mixture.members(config), expected, strict=True):
        for name in ("highest_class", "max_classes", "has_masks", "kept"):
            assert getattr(member.frames, name) == getattr(other.frames, name)
        assert member.frames.highest_class < POISON
    assert records.Frames(poisoned_records, "train").highest_class == POISON  # Whoever evaluates sees all.


@pytest.mark.parametrize("epoch", ["video", "frame"])
def test_labelled_and_unlabelled_clips_come_in_one_stream(config, generated_records, numbered, epoch):
    """Half of every batch ends on the labelled frame of a video, and no label is elsewhere."""
    numbered(config)
    label = records.Frames.label
    sparse(config, generated_records, frames=2, epoch=epoch)

    def withheld(self, record):
        return label(self, record if self.labelled_N[record] else VOID)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.Frames, "label", withheld)
        patch.setattr(records.Frames, "image", lambda self, number, *_: np.full((32, 32, 3), number, np.uint8))
        batches = take(config, 23)
        assert_same(take(config, 2, num_hosts=2) + take(config, 2, first_step=2, num_hosts=4), batches[:4])
    shown = np.concatenate([batch["image_BTHWC"][:, :, 0, 0, 0] for batch in batches])
    frame = np.searchsorted(transforms.NORMALISED[:, 0], shown + 1e-4) - 1
    has_label = (numbers(batches) != VOID).reshape(23, 4, 2)
    np.testing.assert_array_equal(has_label.any(axis=2).sum(axis=1), 2)
    np.testing.assert_array_equal(has_label[..., 0] & ~has_label[..., 1], False)
    labelled = has_label[..., 1].ravel()
    assert set(frame[labelled, 1]) == {0, 10, 20, 30, 40}
    unlabelled = frame[~labelled, 1]
    assert not (unlabelled % 10 == 0).any()
    assert epoch == "video" or sorted(unlabelled[:45]) == [number for number in range(50) if number % 10]
    np.testing.assert_array_equal(frame[~labelled, 0], unlabelled - 1)


@pytest.fixture(scope="session")
def partly_labelled_records(generated_vspw, tmp_path_factory):
    """The videos of `config` as split test, which may lack masks: of four the third and last frames have one."""
    above = tmp_path_factory.mktemp("partly_labelled")
    for number, name in enumerate((generated_vspw / "train.txt").read_text().split()):
        for kind, kept in (("origin", range(10)), ("mask", (2, 9) if number else ())):
            target = above / "mine" / {"origin": "images", "mask": "masks"}[kind] / "test" / name
            target.mkdir(parents=True)
            for place, path in enumerate(sorted((generated_vspw / "data" / name / kind).iterdir())):
                if place in kept:
                    shutil.copy(path, target)
    (above / "names.json").write_text(json.dumps({number: f"class {number}" for number in range(1, 125)}))
    folder.convert(above / "mine", above / "names.json", above / "records", void=["0"], hold="ids")
    return above / "records"


MASKED = [10 * video + frame for video in range(1, 5) for frame in (2, 9)]
"""Its records with a mask."""


@pytest.mark.parametrize("num_frames", [1, 2])
@pytest.mark.parametrize("chosen", ["first", "last"])
@pytest.mark.parametrize("epoch", ["frame", "video"])
def test_clips_are_drawn_around_frames_that_have_a_mask(config, partly_labelled_records, num_frames, chosen, epoch):
    """An epoch has each of these once, or each video with one; the others teach nothing."""
    config.update(records=str(partly_labelled_records), train_split="test")
    config.update(frames=num_frames, chosen=chosen, epoch=epoch)
    batches = take(config, 8)
    assert all((batch["label_BTHW"] != VOID).any(axis=(1, 2, 3)).all() for batch in batches)
    (member,) = mixture.members(config)
    assert np.flatnonzero(member.frames.has_mask_N()).tolist() == MASKED
    rng = np.random.default_rng(0)
    drawn = [member.epoch.choose(number, rng) for number in range(len(member.epoch))]
    numbers = [video.start + frame for video, frame in drawn]
    assert numbers == MASKED if epoch == "frame" else [number // 10 for number in numbers] == [1, 2, 3, 4]


def test_members_of_a_mixture_are_drawn_around_masks_too(config, partly_labelled_records):
    add_images(config, partly_labelled_records, split="test")
    assert [len(member.epoch) for member in mixture.members(config)] == [50, 8]


def test_clips_that_may_lack_the_mask_that_they_are_drawn_around_are_refused(
    config, generated_records, partly_labelled_records
):
    config.update(records=str(partly_labelled_records), train_split="test", frames=3)
    members = mixture.members(config)
    mixture.check_labels(members, config, decoded=3)
    with pytest.raises(UserError, match=r"'main'\) has frames without a mask, and clips of 3 frames 1 apart, of which"):
        mixture.check_labels(members, config, decoded=1)
    config.frame_gap = 2
    with pytest.raises(UserError, match="3 frames 2 apart, of which the last 3 teach.* Set --config.data.chosen=last"):
        mixture.check_labels(mixture.members(config), config, decoded=3)
    config.chosen = "last"
    mixture.check_labels(mixture.members(config), config, decoded=1)
    config.update(records=str(generated_records), train_split="train", chosen="first")
    mixture.check_labels(mixture.members(config), config, decoded=1)


def test_a_share_of_unlabelled_clips_is_that_of_all_that_are_drawn(config, generated_records):
    sparse(config, generated_records)
    for share in (0.2, 0.75):
        config.unlabelled_share = share
        main, unlabelled = mixture.members(config)
        assert unlabelled.draws(2) / (main.draws(2) + unlabelled.draws(2)) == pytest.approx(share)
    report = mixture.report([main, unlabelled], 2)
    assert "unlabelled: vspw train, 75.0 % of the clips; the labels of 0 of 50 frames" in report
    config.unlabelled_share = 0.0
    (alone,) = mixture.members(config)
    assert len(alone.epoch) == 5


def test_where_no_frame_is_unlabelled_clips_without_labels_are_refused(config, generated_records):
    sparse(config, generated_records)
    config.labelled_frames = "all"
    with pytest.raises(UserError, match="unlabelled_share is 0.5, but data.labelled_frames=all leaves no frame of"):
        mixture.members(config)


def test_labels_that_teach_nothing_are_refused(config, poisoned_records, monkeypatch):
    """Those that are kept, not those that the records hold."""
    sparse(config, poisoned_records)
    monkeypatch.setattr(records.Frames, "has_mask_N", lambda self: np.zeros(len(self), bool))
    with pytest.raises(UserError, match=r"its 0 masks \(data.labelled_frames=first\) are void or missing"):
        mixture.members(config)
