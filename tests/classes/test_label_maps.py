"""Label maps against the tables read anew; shares and filter against masks decoded and counted."""

import csv
import pathlib

import numpy as np
import pytest

from vspw_jax.classes import label_maps, vspw
from vspw_jax.console.errors import UserError
from vspw_jax.data import class_pixels

TABLES = pathlib.Path(vspw.__file__).parent / "tables"


def rows(name):
    with (TABLES / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_three_numberings_of_coco_stuff_lead_to_the_same_classes():
    ids = {name: label_maps.of("coco_stuff", name).lookup() for name in label_maps.NUMBERINGS["coco_stuff"]}
    for row in rows("coco_stuff_classes"):
        if row["used"] == "yes":
            pixelmap, trainid, label = (
                int(row[key]) for key in ("pixelmap_value_0_181", "mmseg_trainid_0_170", "label_id_1_182")
            )
            assert ids["pixelmap_0_181"][pixelmap] == ids["trainid_0_170"][trainid] == ids["label_1_182"][label]
        else:
            assert ids["pixelmap_0_181"][int(row["pixelmap_value_0_181"])] == 255


@pytest.mark.parametrize("fits", [("exact",), ("exact", "close"), ("exact", "close", "broad"), ("broad",), ()])
def test_chosen_fits_alone_are_mapped(fits):
    coco = label_maps.of("coco_stuff", "pixelmap_0_181").lookup(fits)
    ade = label_maps.of("ade20k", "raw_0_150").lookup(fits)
    expected_coco, expected_ade = np.full(256, 255), np.full(256, 255)
    for row in rows("coco_to_vspw"):
        if row["fit"] in fits:
            expected_coco[int(row["coco_pixelmap_value"])] = int(row["vspw_raw_id"]) - 1
    for row in rows("ade20k_to_vspw"):
        if row["fit"] in fits:
            expected_ade[int(row["ade_pixelmap_value_1_150"])] = int(row["vspw_raw_id"]) - 1
    np.testing.assert_array_equal(coco, expected_coco)
    np.testing.assert_array_equal(ade, expected_ade)


def test_known_classes_by_name():
    names = vspw.classes().names
    assert names[label_maps.of("coco_stuff", "pixelmap_0_181").lookup()[0]] == "person"
    assert names[label_maps.of("coco_stuff", "label_1_182").lookup()[1]] == "person"
    assert names[label_maps.of("ade20k", "raw_0_150").lookup()[3]] == "sky"
    assert names[label_maps.of("ade20k", "reduced_0_149").lookup()[2]] == "sky"
    np.testing.assert_array_equal(label_maps.of("vspw", "raw_1_124").lookup(), vspw.from_raw(np.arange(256)))


def test_allowed_and_labelled_values():
    counts = {
        (dataset, name): (label_maps.of(dataset, name).labelled.sum(), label_maps.of(dataset, name).allowed.sum())
        for dataset, names in label_maps.NUMBERINGS.items()
        for name in names
    }
    assert counts == {
        ("vspw", "raw_1_124"): (124, 129),
        ("coco_stuff", "pixelmap_0_181"): (171, 172),
        ("coco_stuff", "trainid_0_170"): (171, 172),
        ("coco_stuff", "label_1_182"): (171, 172),
        ("ade20k", "raw_0_150"): (150, 151),
        ("ade20k", "reduced_0_149"): (150, 151),
    }


def test_unknown_names_are_listed():
    with pytest.raises(UserError, match="no fit 'perfect'.*exact, close, broad"):
        label_maps.of("ade20k", "raw_0_150").lookup(("perfect",))
    with pytest.raises(UserError, match="numbering of ade20k.*raw_0_150, reduced_0_149"):
        label_maps.of("ade20k", "raw").lookup()
    with pytest.raises(UserError, match="ade20k, coco_stuff, vspw"):
        label_maps.of("cityscapes", "raw").lookup()


def test_pixels_are_counted_exactly(monkeypatch):
    mask = np.random.default_rng(0).integers(0, 256, (37, 53)).astype(np.uint8)
    values, counts = np.unique(mask, return_counts=True)
    assert class_pixels.count(mask) == dict(zip(values.tolist(), counts.tolist(), strict=True))
    monkeypatch.setattr(class_pixels, "EXACT", 100)  # In parts.
    assert class_pixels.count(mask[:, ::-1]) == dict(zip(values.tolist(), counts.tolist(), strict=True))


def test_shares_and_classes_against_counting_pixels():
    rng = np.random.default_rng(0)
    masks = [rng.choice(rng.integers(0, 256, 6), (7, 9)).astype(np.uint8) for _ in range(20)]
    masks += [np.full((7, 9), 255, np.uint8)]
    pixels = class_pixels.from_counts([class_pixels.count(mask) for mask in masks] + [{}])
    lookup = label_maps.of("coco_stuff", "pixelmap_0_181").lookup(("exact",))
    labelled = label_maps.of("coco_stuff", "pixelmap_0_181").labelled
    for denominator, counted in (("all", np.ones(256, bool)), ("labelled", labelled)):
        shares = class_pixels.mapped_share(pixels, lookup, labelled, denominator)
        expected = [np.mean(lookup[mask[counted[mask]]] != 255) if counted[mask].any() else 0 for mask in masks]
        np.testing.assert_allclose(shares, [*expected, 0], rtol=1e-12)
    most = max(len(set(lookup[mask].ravel()) - {255}) for mask in masks)
    assert class_pixels.most_classes(pixels, lookup) == most
    with pytest.raises(UserError, match="'some'.*all, labelled"):
        class_pixels.mapped_share(pixels, lookup, labelled, "some")
