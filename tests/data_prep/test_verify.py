"""Verification: silent on whole data, and every fault named."""

import io
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from data_prep import coco_stuff, generate, verify, vspw
from data_prep.drawing import layouts, scenes
from data_prep.verification import checks, hypotheses, label_shift, scan
from tests.inputs import frames
from vspw_jax.classes import label_maps
from vspw_jax.console.errors import UserError
from vspw_jax.data import records


def sightings(masks_by_video, lookup=None):
    """What the label shift test sees of masks (H, W), each through a table of 256 values."""
    lookup, total = np.arange(256, dtype=np.uint8) if lookup is None else lookup, label_shift.Sightings()
    for masks in masks_by_video:
        facts = [scan.FrameFacts() for _ in masks]
        for fact, mask in zip(facts, masks, strict=True):
            scan.describe_mask(fact, lookup[mask])
        total.add_video(*scan.grids(facts))
    return total


def one_off(by):
    """A table that moves every id but 255 by one; 0 one back becomes 255, as `x - 1` of 8 bits does."""
    table = (np.arange(256) + by).astype(np.uint8)
    table[255] = 255
    return table


@pytest.fixture(scope="module")
def drawn():
    """The labels of forty drawn frames, indices into `scenes.CLASSES`, as one-frame videos."""
    return [[scenes.clip(5, number, 1, 48, 64)[1][0]] for number in range(40)]


VSPW_TITLES = {-1: "raw ids shifted by -1", 0: "VSPW's raw ids 1..124", 1: "raw ids 1..124, shifted by +1"}
"""How the numbering is called whose ids are so much too high, at its end."""


def judge(dataset, numbering, seen):
    return label_shift.judge(seen, *hypotheses.of(label_maps.of(dataset, numbering)))


@pytest.mark.parametrize("frames", ["all", "one"])
def test_real_masks_one_off_are_named(camvid, frames):
    """CamVid, eleven classes: as it is, one too low, one too high; already one frame of one video suffices."""
    videos = sorted((camvid / "data").iterdir())
    paths = [sorted((video / "mask").iterdir())[:: 12 if frames == "all" else 1000] for video in videos]
    masks = [[np.asarray(Image.open(path)) for path in video] for video in paths]
    for by, title in VSPW_TITLES.items():
        for part in [masks] if frames == "all" else [[video] for video in masks[::3]]:
            verdict = judge("vspw", "raw_1_124", sightings(part, one_off(by)))
            assert verdict.is_clear and verdict.best.title.endswith(title)
            assert frames == "one" or verdict.lead > 3 * label_shift.MARGIN
            assert bool(verdict.reasons) == bool(by)


def test_drawn_masks_one_off_are_named(drawn):
    """The drawn scenes hold bands of equal height and seven objects: forty frames are enough for a lead of 8 nats."""
    for by, title in VSPW_TITLES.items():
        verdict = judge("vspw", "raw_1_124", sightings(drawn, one_off(by)[layouts.vspw_lookup()]))
        assert verdict.is_clear and verdict.best.title.endswith(title)


def test_numberings_of_coco_stuff_are_told_apart(drawn):
    names = [*label_maps.NUMBERINGS["coco_stuff"]]
    known = [hypotheses.numbering(label_maps.of("coco_stuff", name)) for name in names]
    drawn_as = layouts.coco_stuff_lookup()
    for true in known:
        value = {name: value for value, name in true.names.items()}
        renumbered = np.array([value.get(known[names.index("pixelmap_0_181")].names.get(v), 255) for v in range(256)])
        seen = sightings(drawn, renumbered.astype(np.uint8)[drawn_as])
        for expected in names:
            verdict = judge("coco_stuff", expected, seen)
            assert verdict.is_clear and verdict.best.title == true.title


def test_ade20k_one_off_is_named(drawn):
    names = {
        name.split(";")[0]: v for v, name in hypotheses.numbering(label_maps.of("ade20k", "raw_0_150")).names.items()
    }
    names["ship_or_boat"], names["painting_or_poster"] = names["boat"], names["painting"]
    lookup = np.full(256, 0, np.uint8)
    lookup[: len(scenes.CLASSES)] = [names.get(name, 0) for name in scenes.CLASSES]
    for by, title in ((0, "ADE20K's ids 1..150"), (-1, "ADE20K's train ids 0..149"), (1, "shifted by +1")):
        verdict = judge("ade20k", "raw_0_150", sightings(drawn, one_off(by)[lookup]))
        assert verdict.is_clear and verdict.best.title.endswith(title)


@pytest.mark.parametrize("by", [-1, 0, 1])
def test_nothing_wrong_is_claimed_from_little(drawn, by):
    """From one class nothing is claimed; from one frame nothing, or what is so."""
    raw = one_off(by)[layouts.vspw_lookup()]
    for name in scenes.CLASSES:
        one_class = np.where(np.arange(256) == scenes.CLASSES.index(name), raw, 255).astype(np.uint8)
        assert not judge("vspw", "raw_1_124", sightings(drawn, one_class)).is_clear
    for video in drawn:
        verdict = judge("vspw", "raw_1_124", sightings([video], raw))
        assert not verdict.is_clear or verdict.best.title.endswith(VSPW_TITLES[by])


def test_classes_put_at_random_are_said_to_be_nonsense(drawn):
    """Each drawn class becomes one of VSPW's by chance: no numbering is named."""
    rng = np.random.default_rng(6)
    answers = []
    for _ in range(20):
        lookup = np.full(256, 255, np.uint8)
        lookup[: len(scenes.CLASSES)] = rng.choice(np.arange(2, 124), len(scenes.CLASSES), replace=False)
        answers.append(judge("vspw", "raw_1_124", sightings(drawn, lookup)))
    assert sum(answer.is_nonsense for answer in answers) >= 8 and not any(answer.is_clear for answer in answers)


def record(label, image=None, jpeg=None, **fields):
    """A record with a mask of raw ids and a grey frame of its size."""
    image = np.full((*label.shape, 3), 90, np.uint8) if image is None else image
    png = io.BytesIO()
    Image.fromarray(label).save(png, "png")
    jpeg = cv2.imencode(".jpg", image)[1].tobytes() if jpeg is None else jpeg
    return {"video": "v", "frame": "1", "image_jpeg": jpeg, "mask_png": png.getvalue(), **fields}


def test_unusable_frames_are_named():
    label = np.full((32, 48), 5, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    assert scan.read_facts(record(label)).problem is None
    assert scan.read_facts(record(label, mask_png=b"")).problem is None
    assert "its image is damaged or cut off" in scan.read_facts(record(label, jpeg=whole[: len(whole) // 2])).problem
    assert "its image cannot be read as a picture" in scan.read_facts(record(label, jpeg=b"junk")).problem
    assert "mask cannot be read" in scan.read_facts(record(label, mask_png=b"junk")).problem
    assert "its mask holds colours" in scan.read_facts(record(noise, image=noise)).problem
    assert "48x32 pixels, its frame 24x16" in scan.read_facts(record(label, image=noise[:16, :24])).problem
    findings = checks.Findings()
    bad = [record(label, jpeg=noise.tobytes(), frame=f"{frame}") for frame in range(7)]
    checks.check_frames(findings, "val", scanned([*bad, record(label, frame="7")]), full=False)
    [(kind, text)] = findings.problems
    assert kind == "unreadable" and text.startswith("val: 7 unusable frames: v/0: its image") and "and 2 more" in text


def scanned(records):
    """A `SplitScan` of records made here."""
    found = scan.SplitScan()
    for number, fields in enumerate(records):
        found.add(number, scan.read_facts(fields))
    return found


def test_histogram_is_that_of_the_masks():
    rng = np.random.default_rng(1)
    labels = [rng.integers(0, 125, (20, 30), dtype=np.uint8) for _ in range(3)]
    found = scanned([record(label, frame=str(number)) for number, label in enumerate(labels)])
    np.testing.assert_array_equal(found.pixels_V, np.bincount(np.ravel(labels), minlength=256))
    np.testing.assert_array_equal(found.frames_V, [sum(v in label for label in labels) for v in range(256)])
    most = {v: max((int((label == v).sum()), -number) for number, label in enumerate(labels)) for v in range(125)}
    assert found.largest == {v: (pixels, -number) for v, (pixels, number) in most.items() if pixels}


def test_values_out_of_range_are_named_with_their_first_frame():
    label = np.full((8, 8), 3, np.uint8)
    odd = label.copy()
    odd[0, :3] = 125, 200, 252
    findings = checks.Findings()
    found = scanned([record(label), record(odd, frame="2"), record(odd, frame="3")])
    checks.check_ids(findings, "train", found, hypotheses.numbering(label_maps.of("vspw", "raw_1_124")))
    [(kind, text)] = findings.problems
    assert kind == "ids" and "125 in 2 frames, first v/2; 200 in 2 frames, first v/2" in text and "252" not in text


def test_gaps_follow_the_commonest_step():
    assert checks.missing_numbers(["00000030", "00000060", "00000120", "00000150", "00000180"]) == [range(90, 120, 30)]
    assert checks.missing_numbers(["1", "2", "3", "9000000000"]) == [range(4, 9_000_000_000)]
    for names in (["5", "6", "7"], ["5", "9"], ["a", "b", "d"], ["1", "5", "17", "40", "41"], ["7", "7", "7"]):
        assert checks.missing_numbers(names) == []
    found = scan.SplitScan()
    found.names.update(v=["00000001", "00000002", "00000005", "00000006"])
    findings = checks.Findings()
    checks.check_frames(findings, "train", found, full=False)
    assert findings.notes == ["train: 2 frames missing within videos: v/00000003 and on"] and not findings.problems
    checks.check_frames(findings, "train", found, full=True)
    assert findings.problems == [("gaps", findings.notes[0])]


def test_copies_and_repeated_names_are_told_from_a_video_that_stands_still():
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    label = np.full((16, 16), 3, np.uint8)

    def split(video, *numbers):
        return scanned(
            [record(label, image=images[n], video=video, frame=f"{place:02d}") for place, n in enumerate(numbers)]
        )

    findings = checks.Findings()
    checks.check_duplicates(findings, {"train": split("a", 0, 0, 1, 2), "val": split("b", 3, 4, 5)})
    assert findings.problems == [] and "train a/00 = train a/01" in findings.notes[0]
    checks.check_duplicates(findings, {"train": split("a", 0, 1, 0), "val": split("b", 2, 3, 1)})
    assert [kind for kind, _ in findings.problems] == ["leaks", "duplicates"]
    assert "train a/01 = val b/02" in findings.problems[0][1] and "train a/00 = train a/02" in findings.problems[1][1]

    findings = checks.Findings()
    checks.check_frames(findings, "val", scanned([record(label), record(label)]), full=False)
    assert findings.problems == [("names", "val: 1 frame names occur twice: v/1")]


def test_counts_are_the_published_ones_or_a_subsets():
    found = scan.SplitScan(frames=24_502)
    found.names.update({str(video): [] for video in range(343)})
    findings = checks.Findings()
    checks.check_counts(findings, "vspw", "val", found, full=True)
    assert not findings.problems and "as published" in findings.notes[0]
    found.frames -= 1
    checks.check_counts(findings, "vspw", "val", found, full=False)
    assert not findings.problems and "24,501 of 24,502 frames: a subset" in findings.notes[1]
    checks.check_counts(findings, "vspw", "val", found, full=True)
    assert findings.problems[0][0] == "counts"


def test_whole_data_is_clean(generated_vspw, generated_records, tmp_path, capsys):
    """Counts, histogram and page of the drawn set; two processes find what one does."""
    verify.main([f"--records={generated_records}", f"--output={tmp_path}"])
    assert "train: 5 of 2,806 videos, 50 of 198,244 frames: a subset" in capsys.readouterr().out
    summary = json.loads((tmp_path / "verification.json").read_text())
    assert summary["problems"] == []
    assert [entry["frames_with_masks"] for entry in summary["splits"].values()] == [50, 30, 0]
    masks = [np.asarray(Image.open(path)) for path in generated_vspw.glob("data/*/mask/*.png")]
    pixels = np.bincount(np.ravel(masks), minlength=256)
    assert {entry["value"]: entry["pixels"] for entry in summary["classes"] if entry["pixels"]} == {
        value: count for value, count in enumerate(pixels.tolist()) if count
    }
    page = (tmp_path / "verification.html").read_text()
    shown = set(re.findall(r"<figcaption>(\d+) ", page))
    assert shown == {str(value) for value in np.flatnonzero(pixels[1:125]) + 1} and page.count("<img") == len(shown)
    assert not re.search(r'(src|href)="(?!data:)', page)

    assert checks.verify(generated_records, workers=2).findings == checks.verify(generated_records).findings


def test_faults_of_records_are_listed_in_one_message(generated_records, tmp_path, capsys):
    """Another fingerprint, other class counts and a truncated shard; what is accepted does not fail."""
    shutil.copytree(generated_records, tmp_path / "records")
    folder = records.find(tmp_path / "records")
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["fingerprint"]["val"] = "0" * 64
    metadata["videos"]["test"][0][0] = "other"
    (folder / "metadata.json").write_text(json.dumps(metadata))
    counts = scan.class_pixels.load(folder, "train", 50)
    counts.data[0] += 1
    scan.class_pixels.save(folder / "class_pixels-train.npz", counts)
    with pytest.raises(UserError) as raised:
        verify.main([f"--records={tmp_path / 'records'}"])
    kinds = re.findall(r"^  \[(\w+)\] (\w+)", str(raised.value), re.MULTILINE)
    assert kinds == [("class_pixels", "train"), ("fingerprint", "val"), ("index", "test")]
    verify.main([f"--records={tmp_path / 'records'}", "--accept=class_pixels,fingerprint,index"])
    assert capsys.readouterr().out.count("accepted: [") == 3

    shard = next(folder.glob("*train*array_record*"))
    shard.write_bytes(shard.read_bytes()[:1000])
    findings = checks.verify(tmp_path / "records").findings
    assert findings.problems[0][0] == "unreadable" and shard.name in findings.problems[0][1]
    assert [kind for kind, _ in findings.problems[1:]] == ["fingerprint", "index"]


def test_converted_masks_one_too_high_are_named(tmp_path):
    """From masks on disk through the converter to the message."""
    source = tmp_path / "source"
    generate.generate(source, lambda aside: layouts.write_vspw(aside, {"train": 24, "val": 16}, 1, 48, 64, 5))
    for path in source.glob("data/*/mask/*.png"):
        Image.fromarray(one_off(1)[np.asarray(Image.open(path))]).save(path)
    vspw.convert(source, tmp_path / "records")
    problems = checks.verify(tmp_path / "records").findings.problems
    assert [kind for kind, _ in problems] == ["shift"]
    assert "train, val: the masks look like VSPW's raw ids 1..124, shifted by +1" in problems[0][1]


def test_converted_masks_of_another_numbering_are_named(tmp_path):
    """COCO-Stuff's pixelmaps, said to be train ids: images with ids above 170 are left out, the rest looks wrong."""
    source = tmp_path / "source"
    generate.generate(source, lambda aside: layouts.write_coco_stuff(aside, {"train2017": 40, "val2017": 8}, 48, 64, 5))
    coco_stuff.convert(source, tmp_path / "right")
    right = checks.verify(tmp_path / "right")
    assert not right.findings.problems and "train: 40 of 118,287 images: a subset" in right.findings.notes[0]
    assert right.expected.title == "COCO-Stuff's pixelmaps 0..181" and right.verdict.is_clear
    coco_stuff.convert(source, tmp_path / "wrong", max_bad=48, numbering="trainid_0_170")
    [(kind, text)] = checks.verify(tmp_path / "wrong").findings.problems
    assert kind == "shift" and "look like COCO-Stuff's pixelmaps 0..181: expected mmseg's train ids 0..170" in text


def test_half_a_frame_with_an_end_is_named():
    label = np.full((48, 64), 5, np.uint8)
    half = frames.half_with_end(frames.encoded("JPEG"))
    assert "its image is damaged or cut off" in scan.read_facts(record(label, jpeg=half)).problem
    assert scan.read_facts(record(label, jpeg=frames.encoded("PNG"))).problem is None


def found_in_frames(*records):
    findings = checks.Findings()
    checks.check_frames(findings, "val", scanned(records), full=False)
    return findings


def test_frames_in_the_order_of_text_are_named():
    label = np.full((48, 64), 5, np.uint8)
    findings = found_in_frames(*(record(label, frame=name) for name in ("1", "10", "2")))
    (problem,) = findings.problems
    assert problem == ("order", "val: 1 videos are not in the order of their frames' numbers: v. Convert again")


def test_frames_of_another_size_than_their_videos_first_are_named():
    large, small = np.full((48, 64), 5, np.uint8), np.full((48, 60), 5, np.uint8)
    findings = found_in_frames(record(large), record(small, frame="2"), record(small, video="w"))
    ((kind, text),) = findings.problems
    assert kind == "sizes" and text.endswith(
        "another size than the first of their video: v/2 is 60x48 pixels, v/1 64x48"
    )
    findings = found_in_frames(*(record(label, frame=f"{n}", mask_png=b"") for n, label in enumerate((large, small))))
    assert findings.problems == [] and "v/1 is 60x48 pixels, v/0 64x48" in findings.notes[0]
