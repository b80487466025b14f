"""Classes of several data sets together: their numbers, names and colours, and what is void among them."""

import numpy as np
import pytest

from vspw_jax.classes import class_list, class_union, label_maps, published, vspw
from vspw_jax.classes.class_list import HOLE, VOID
from vspw_jax.console.errors import UserError

STREET, HOUSE = class_list.coloured(["road", "wall", "car"]), class_list.coloured(["wall", "bed"])


def many(count, letter):
    return class_list.coloured([f"{letter}{number}" for number in range(count)])


def test_they_are_numbered_one_after_the_other_and_clashes_go_by_the_data_set():
    union = class_union.of([("main", "streets", STREET), ("b", "houses", HOUSE), ("val", "streets", STREET)])
    assert union.names == ("road", "streets/wall", "car", "houses/wall", "bed")
    assert [part.numbers.tolist() for part in union.parts] == [[0, 1, 2], [3, 4]]
    assert union.parts[1].lookup.tolist() == [3, 4] + [VOID] * 254
    assert union.colours[:3] == STREET.colours and len(set(union.colours)) == 5
    assert class_union.from_json(union.to_json()) == union
    assert class_union.of([("main", "streets", STREET), ("val", "streets", STREET)]) is STREET


def test_two_sets_of_one_name_go_by_the_mixtures_names():
    union = class_union.of([("main", "folder", STREET), ("mine", "folder", HOUSE)])
    assert union.names[1] == "main/wall" and union.names[3] == "mine/wall"


def test_names_that_would_be_taken_twice_are_told_apart():
    """By the mixture's names, where one of these is another data set's own; by numbers, where a class has a slash."""
    members = [("main", "folder", STREET), ("ade20k", "folder", HOUSE), ("b", "ade20k", class_list.coloured(["wall"]))]
    union = class_union.of(members)
    assert [part.name for part in union.parts] == ["main", "ade20k", "b"]
    assert union.names == ("road", "main/wall", "car", "ade20k/wall", "bed", "b/wall")
    members = [("main", "folder", STREET), ("b", "folder", HOUSE), ("c", "b", many(2, "c")), ("d", "c", many(3, "d"))]
    assert [part.name for part in class_union.of(members).parts] == ["main", "b", "c", "d"]
    slashed = class_list.coloured(["streets/wall", "wall"])
    union = class_union.of([("main", "streets", STREET), ("b", "houses", slashed)])
    assert union.names == ("road", "streets/wall", "car", "streets/wall (2)", "houses/wall")


@pytest.mark.parametrize("sizes", [(254, 3), (255, 2), (21, 150, 171), (255,)])
def test_no_class_has_the_number_of_void(sizes):
    union = class_union.of([(str(n), str(n), many(size, "abc"[n])) for n, size in enumerate(sizes)])
    numbers = np.concatenate([part.numbers for part in union.parts]) if len(sizes) > 1 else np.arange(255)
    expected = [number for number in range(sum(sizes) + 1) if number != VOID][: sum(sizes)]
    assert numbers.tolist() == expected and len(union) == max(numbers) + 1
    own = [name for size, letter in zip(sizes, "abc", strict=False) for name in many(size, letter).names]
    assert [union.names[number] for number in numbers] == own
    assert len(union) <= VOID or union.names[VOID] == HOLE
    assert not union.palette[VOID].any() and len(set(union.colours)) == len(union)


def test_three_public_sets_have_342_classes_together():
    """Paper 003 pretrains on these."""
    members = [("main", "pascal_voc", published.label_map("pascal_voc").classes)]
    for dataset, numbering in (("ade20k", "raw_0_150"), ("coco_stuff", "pixelmap_0_181")):
        own = label_maps.to_own_classes(label_maps.of(dataset, numbering)).classes
        members.append((dataset, dataset, own))
    union = class_union.of(members)
    assert len(union) == 343 and [part.first for part in union.parts] == [0, 21, 171]
    assert union.names[15] == "pascal_voc/person" and union.names[21 + 12] == "ade20k/person"
    assert union.names[172 + 100] == union.parts[2].classes.names[100]


def test_more_classes_than_bytes_are_refused_of_one_data_set():
    with pytest.raises(UserError, match="There are 256 classes: expected 1 to 255"):
        many(256, "a")


def test_a_network_is_scored_on_one_of_its_data_sets():
    union = class_union.of([("main", "streets", STREET), ("b", "houses", HOUSE)])
    assert class_union.part_for(union, HOUSE, "data").name == "houses"
    assert class_union.part_for(HOUSE, HOUSE, "data") is None
    with pytest.raises(
        UserError, match=r"classes of streets \(3\), houses \(2\); data has 124 others .* of one of the"
    ):
        class_union.part_for(union, vspw.classes(), "data")


def test_a_list_of_its_names_gives_a_union_its_numbers():
    """As a file has them: its data sets may come in another order, on which no name depends here."""
    members = [("main", "streets", STREET), ("b", "houses", HOUSE), ("c", "many", many(253, "c"))]
    union, other = class_union.of(members), class_union.of([members[2], members[0], members[1]])
    plain = class_list.ClassList(other.names, other.colours, other.file_colours)
    assert union.numbered_as(plain) == other and other.numbered_as(plain) == other
    swapped = class_list.coloured([*union.names[1::-1], *union.names[2:]])
    assert union.numbered_as(swapped) is None and union.numbered_as(STREET) is None


@pytest.mark.parametrize(("names", "alike"), [
    (["road", "Wall", "car"], True),
    (["road", "wall", "bus", "car"], True),
    (["road", "car", "wall", "tree"], False),
    (["wall", "road", "car"], False),
    (["a", "b", "c"], False),
])  # fmt: skip
def test_names_of_a_file_may_be_spelled_otherwise_but_not_stand_elsewhere(names, alike):
    """Most names that both have must have one number: a second "car" of the data is called a bus in the file."""
    found, of_data = class_list.coloured(names), class_list.coloured(["road", "wall", "car", "car (2)"][: len(names)])
    if alike:
        class_list.check_numbered_alike(found, of_data, "data")
        return
    with pytest.raises(UserError, match="in another order: .* --config.data.classes=union"):
        class_list.check_numbered_alike(found, of_data, "data")


def test_data_sets_that_map_to_vspw_have_their_own_classes_too():
    for numbering, void in (("raw_0_150", 0), ("reduced_0_149", 255)):
        own = label_maps.to_own_classes(label_maps.of("ade20k", numbering))
        lookup = own.lookup(("exact",))
        first = int(numbering == "raw_0_150")
        assert lookup[first : first + 150].tolist() == list(range(150)) and lookup[void] == VOID
        assert own.classes.names[:3] == ("wall", "building", "sky")
    for same in (own, label_maps.of("vspw", "raw_1_124")):
        assert label_maps.to_own_classes(same) is same
