"""Every picture is in one split, groups and near-duplicates stay together, and the shares are right."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.errors import UserError
from headstart.base.manifest import SPLITS, Manifest, Split
from headstart.base.units import unit_name
from headstart.params.root import SplitParams
from headstart.split.assign import SplitAssignment, assign_splits
from headstart.split.groups import label_sets
from manifests import boxed, record, records

PARAMS = SplitParams(train=0.6, val=0.2, test=0.2)


def split_of(assigned: SplitAssignment) -> dict[int, Split]:
    return {image.id: name for name, part in assigned.splits.items() for image in part.images}


def counts(assigned: SplitAssignment, label: str) -> dict[Split, int]:
    return {name: sum(i.label == label for i in part.images) for name, part in assigned.splits.items()}


@st.composite
def manifests_with_pairs(draw: st.DrawFn) -> tuple[Manifest, list[tuple[int, int]]]:
    """Pictures of two labels, some in groups, pinned or near-duplicates; enough of both for every split."""
    images = [record(n, label) for n, label in enumerate(["ant", "bee"] * 12, start=1)]
    for label in ("ant", "bee"):  # three pictures that nothing else touches: one for each split
        images += [record(100 * "ab".index(label[0]) + 100 + n, label) for n in range(3)]
    changed = [
        image.model_copy(
            update={
                "group": draw(st.sampled_from([None, None, None, "g", "h"])),
                "split": draw(st.sampled_from([None, None, None, *SPLITS])),
            }
        )
        for image in images[:24]
    ]
    pairs = draw(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), max_size=5))
    return records(*changed, *images[24:]), pairs


@given(manifests_with_pairs(), st.integers(0, 5))
@settings(max_examples=60)
def test_properties_of_every_split(made: tuple[Manifest, list[tuple[int, int]]], seed: int) -> None:
    manifest, pairs = made
    assigned = assign_splits(manifest, PARAMS, seed, pairs)
    where = split_of(assigned)
    dropped = {image.id for image in assigned.dropped}
    assert Counter([*where, *dropped]) == Counter(image.id for image in manifest.images), "one split for each"
    by_id = {image.id: image for image in manifest.images}
    for a, b in pairs:
        if a in where and b in where:
            assert where[a] == where[b], "near-duplicates stay together"
    for group in ("g", "h"):
        assert len({where[i.id] for i in manifest.images if i.group == group and i.id in where}) <= 1
    for number, name in where.items():
        assert by_id[number].split in (None, name), "pins are respected"
    for number in dropped:
        assert by_id[number].split in ("train", "val"), "only pinned pictures are dropped, and never from test"
    for part in assigned.splits.values():
        assert [i.id for i in part.images] == sorted(i.id for i in part.images)
        assert {i.label for i in part.images} == {"ant", "bee"}
    assert assign_splits(manifest, PARAMS, seed, pairs) == assigned, "the same again"


@given(st.lists(st.integers(1, 4), min_size=12, max_size=40), st.integers(0, 5), st.sampled_from([0.6, 0.34, 0.8]))
@settings(max_examples=60)
def test_shares_are_right_within_one_group(groups: list[int], seed: int, train: float) -> None:
    params = SplitParams(train=train, val=(1 - train) / 2, test=(1 - train) / 2)
    sizes = [size for size in groups for _ in range(size)]
    names = [f"group {number}" for number, size in enumerate(groups) for _ in range(size)]
    images = [record(n, group=name) for n, name in enumerate(names, start=1)]
    found = counts(assign_splits(records(*images), params, seed, []), "ant")
    for name in SPLITS:
        assert abs(found[name] - getattr(params, name) * len(sizes)) <= max(groups)


def test_ten_pictures_by_hand() -> None:
    assigned = assign_splits(records(*(record(n) for n in range(1, 11))), PARAMS, 0, [])
    assert counts(assigned, "ant") == {"train": 6, "val": 2, "test": 2}
    assert assigned.dropped == ()


def test_each_label_has_its_own_shares() -> None:
    images = [*(record(n) for n in range(1, 11)), *(record(n, "bee") for n in range(11, 31))]
    assigned = assign_splits(records(*images), PARAMS, 0, [])
    assert counts(assigned, "ant") == {"train": 6, "val": 2, "test": 2}
    assert counts(assigned, "bee") == {"train": 12, "val": 4, "test": 4}


def test_three_pictures_are_one_for_each() -> None:
    for seed in range(5):
        assigned = assign_splits(
            records(*(record(n) for n in range(1, 4))), SplitParams(train=0.9, val=0.05, test=0.05), seed, []
        )
        assert counts(assigned, "ant") == {"train": 1, "val": 1, "test": 1}


def test_the_largest_group_goes_to_the_split_that_needs_most() -> None:
    images = [*(record(n, group="dog") for n in range(1, 7)), *(record(n) for n in range(7, 11))]
    where = split_of(assign_splits(records(*images), PARAMS, 0, []))
    assert {where[n] for n in range(1, 7)} == {"train"}
    assert sorted(where[n] for n in range(7, 11)) == ["test", "test", "val", "val"]


def test_near_duplicates_with_two_labels_do_not_change_the_sizes() -> None:
    """Of 200 pictures, 30 ants have two bees as near-duplicates: each three count as bees."""
    images = [record(n, "ant" if n < 60 else "bee") for n in range(200)]
    pairs = [(n, n + other) for n in range(30) for other in (60, 100)]
    for seed in range(5):
        found = assign_splits(records(*images), SplitParams(train=0.7, val=0.15, test=0.15), seed, pairs)
        assert [len(part.images) for part in found.splits.values()] == pytest.approx([140, 30, 30], abs=1)


def test_groups_are_one_name_space_over_all_sources() -> None:
    """20 patients, each with a picture in two tables."""
    images = [
        record(20 * table + n, group=f"patient {n}").model_copy(update={"source": f"table {table}"})
        for table in range(2)
        for n in range(20)
    ]
    where = split_of(assign_splits(records(*images), PARAMS, 0, []))
    assert all(where[n] == where[20 + n] for n in range(20))
    assert Counter(where.values()) == {"train": 24, "val": 8, "test": 8}


def test_linked_near_duplicates_are_one_group() -> None:
    images = [record(1, group="a"), record(2, group="a"), record(3), record(4, group="b"), record(5, group="b")]
    where = split_of(assign_splits(records(*images, *(record(n) for n in range(6, 14))), PARAMS, 0, [(2, 3), (3, 4)]))
    assert len({where[n] for n in range(1, 6)}) == 1


def test_the_same_seed_gives_the_same_splits() -> None:
    manifest = records(*(record(n) for n in range(1, 41)))
    where = [split_of(assign_splits(manifest, PARAMS, seed, [])) for seed in (0, 0, 1)]
    assert where[0] == where[1]
    assert where[0] != where[2]


def test_pinned_pictures_stay_and_do_not_count_for_the_shares() -> None:
    images = [*(record(n, split="test") for n in range(1, 6)), *(record(n) for n in range(6, 16))]
    assigned = assign_splits(records(*images), PARAMS, 0, [])
    assert all(split_of(assigned)[n] == "test" for n in range(1, 6))
    assert counts(assigned, "ant") == {"train": 6, "val": 2, "test": 7}


def test_an_unpinned_near_duplicate_goes_to_the_pinned_split() -> None:
    images = [record(1, split="val"), *(record(n) for n in range(2, 12))]
    assert split_of(assign_splits(records(*images), PARAMS, 0, [(1, 2)]))[2] == "val"


@pytest.mark.parametrize(
    ("pins", "kept", "dropped"),
    [(("train", "test"), 2, 1), (("test", "train"), 1, 2), (("train", "val"), 2, 1), (("val", "test"), 2, 1)],
)
def test_where_pins_conflict_the_earlier_split_loses_its_copy(pins: Sequence[Split], kept: int, dropped: int) -> None:
    images = [record(1, split=pins[0]), record(2, split=pins[1]), *(record(n) for n in range(3, 13))]
    assigned = assign_splits(records(*images), PARAMS, 0, [(1, 2)])
    assert [image.id for image in assigned.dropped] == [dropped]
    assert split_of(assigned)[kept] == pins[kept - 1]


def test_everything_pinned() -> None:
    images = [record(n, split=name) for n, name in enumerate(SPLITS, start=1)]
    assert split_of(assign_splits(records(*images), PARAMS, 0, [])) == {1: "train", 2: "val", 3: "test"}


def test_a_share_of_nothing_leaves_the_split_to_the_pinned_pictures() -> None:
    params = SplitParams(train=0.8, val=0.2, test=0)
    images = [record(1, split="test"), *(record(n) for n in range(2, 12))]
    assert counts(assign_splits(records(*images), params, 0, []), "ant") == {"train": 8, "val": 2, "test": 1}


def test_a_test_set_of_pinned_pictures_may_lack_a_label() -> None:
    params = SplitParams(train=0.8, val=0.2, test=0)
    images = [record(1, split="test"), *(record(n, "bee" if n % 2 else "ant") for n in range(2, 12))]
    assert counts(assign_splits(records(*images), params, 0, []), "bee") == {"train": 4, "val": 1, "test": 0}


@pytest.mark.parametrize(("count", "problem"), [(1, "1 picture, none"), (2, "2 pictures, none")])
def test_too_few_pictures_of_a_label(count: int, problem: str) -> None:
    images = [*(record(n) for n in range(1, 11)), *(record(20 + n, "bee") for n in range(count))]
    with pytest.raises(UserError) as caught:
        assign_splits(records(*images), PARAMS, 0, [])
    assert f"fetch.sources: label 'bee' has {problem} is left for" in str(caught.value)
    assert "add different pictures of it" in str(caught.value)


def box_shares(assigned: SplitAssignment, label: str) -> list[int]:
    return [sum(label in some for some in label_sets(part, boxes=True).values()) for part in assigned.splits.values()]


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_boxes_and_background_come_near_their_shares(seed: int) -> None:
    """40 pictures of a, half of them with b, 10 of all three, 20 of nothing."""
    manifest = boxed(*["a"] * 20, *["ab"] * 10, *["abc"] * 10, *[""] * 20)
    assigned = assign_splits(manifest, PARAMS, seed, [], boxes=True)
    assert box_shares(assigned, "a") == [24, 8, 8]
    assert box_shares(assigned, "b") == [12, 4, 4]
    assert box_shares(assigned, "c") == [6, 2, 2]
    assert [sum(not some for some in label_sets(p, boxes=True).values()) for p in assigned.splits.values()] == [
        12,
        4,
        4,
    ]
    assert sum(len(part.annotations) for part in assigned.splits.values()) == len(manifest.annotations)


def test_many_combinations_of_labels_do_not_all_go_to_train() -> None:
    """Each combination of labels once: assigned by combination, all 20 would be in train."""
    letters = "abcdef"
    manifest = boxed(*("".join(some) for some in combinations(letters, 3)))
    assigned = assign_splits(manifest, PARAMS, 0, [], boxes=True)
    sizes = [len(part.images) for part in assigned.splits.values()]
    assert sum(sizes) == 20
    assert sizes[1] >= 3
    assert sizes[2] >= 3


@pytest.mark.parametrize(("pins", "name"), [({1: "val"}, "train"), ({0: "train", 1: "train"}, "val")])
def test_a_label_of_boxes_that_a_split_lacks(pins: dict[int, Split], name: Split) -> None:
    manifest = boxed("b" if 0 in pins else "a", "b", *["a"] * 12)
    pinned = [i.model_copy(update={"split": pins.get(i.id)}) for i in manifest.images]
    with pytest.raises(UserError, match=f"label 'b' has . pictures?, none is left for {name}: .*; pin some to {name}"):
        assign_splits(manifest.model_copy(update={"images": tuple(pinned)}), PARAMS, 0, [], boxes=True)


def test_a_label_of_crowds_alone_has_no_pictures() -> None:
    with pytest.raises(UserError, match="label 'z' has 0 pictures, none is left for train"):
        assign_splits(boxed(*["a"] * 12, crowds="z"), PARAMS, 0, [], boxes=True)


def test_near_duplicates_do_not_count_as_different_pictures() -> None:
    images = [*(record(n) for n in range(1, 11)), *(record(20 + n, "bee") for n in range(3))]
    with pytest.raises(UserError, match=r"label 'bee' has 3 pictures, none is left for .* leaves 2 to divide"):
        assign_splits(records(*images), PARAMS, 0, [(20, 21)])


def test_no_test_pictures_at_all() -> None:
    with pytest.raises(UserError, match=r"^params\.yaml: split\.test: 0: .*none is left for test; give it a share$"):
        assign_splits(records(*(record(n) for n in range(1, 11))), SplitParams(train=0.8, val=0.2, test=0), 0, [])


# --- all pictures are pinned ---


def pinned(**counts: int) -> Manifest:
    """So many ants and so many bees pinned to each split."""
    labels = [(name, label) for name, count in counts.items() for label in ("ant", "bee") for _ in range(count)]
    return records(*(record(n, label, split=name) for n, (name, label) in enumerate(labels)))


@pytest.mark.parametrize(("given", "missing"), [("val", "test"), ("test", "val")])
def test_a_missing_split_is_dealt_from_train(given: Split, missing: Split) -> None:
    """Its share of train's and its own: 0.2 / (0.6 + 0.2) of 40."""
    manifest = pinned(**{"train": 20, given: 7})
    assigned = assign_splits(manifest, PARAMS, 0, [])
    for label in ("ant", "bee"):
        assert counts(assigned, label) == {"train": 15, given: 7, missing: 5}
    assert assigned.from_train == {missing: 10}
    where = split_of(assigned)
    assert all(where[image.id] == given for image in manifest.images if image.split == given)


def test_both_missing_splits_are_dealt_from_train() -> None:
    assigned = assign_splits(pinned(train=20), PARAMS, 0, [])
    assert counts(assigned, "ant") == {"train": 12, "val": 4, "test": 4}
    assert assigned.from_train == {"val": 8, "test": 8}


def test_nothing_is_dealt_from_train_where_other_pictures_can_come_to_the_split() -> None:
    manifest = pinned(train=20, val=7)
    free = [record(100 + n, label) for n, label in enumerate(["ant", "bee"] * 5)]
    assigned = assign_splits(manifest.model_copy(update={"images": (*manifest.images, *free)}), PARAMS, 0, [])
    assert assigned.from_train == {}
    assert counts(assigned, "ant") == {"train": 23, "val": 8, "test": 1}


def test_no_training_pictures_are_blamed_on_the_pins() -> None:
    with pytest.raises(UserError) as caught:
        assign_splits(pinned(val=5, test=5), PARAMS, 0, [])
    assert str(caught.value) == (
        "params.yaml: fetch.sources: all 20 pictures are pinned to val and test by s (folders named like splits, "
        "lists, a column `split` or the key `split:`), so none is left for train; pin some to train, or none at all"
    )


def test_a_label_that_no_pinned_picture_has_is_blamed_on_the_pins() -> None:
    manifest = pinned(train=5, val=5)
    some = [record(100 + n, split="test") for n in range(5)]
    with pytest.raises(
        UserError, match=r"'bee' has 10 pictures, none is left for test: .* pinned to train and val by s"
    ):
        assign_splits(manifest.model_copy(update={"images": (*manifest.images, *some)}), PARAMS, 0, [])


def test_groups_that_leave_too_few_are_named() -> None:
    images = [*(record(n, "bee", group="hive") for n in range(9)), *(record(n) for n in range(9, 20))]
    with pytest.raises(
        UserError, match=r"'bee' has 9 pictures, none is left for val: .* which leaves 1 to divide; add"
    ):
        assign_splits(records(*images), PARAMS, 0, [])


def test_the_unit_is_the_group_joined_with_near_duplicates() -> None:
    """Named by the first group of it, else by the smallest sha256; a picture alone has none."""
    images = [record(1, group="b"), record(2), record(3, group="a"), record(4, group="c"), record(7), record(6)]
    assigned = assign_splits(records(*images, *(record(n) for n in range(10, 20))), PARAMS, 0, [(1, 2), (2, 3), (7, 6)])
    units = {image.id: image.unit for part in assigned.splits.values() for image in part.images}
    expected = {1: "group a", 2: "group a", 3: "group a", 4: "group c", 6: "6", 7: "6"}
    assert units == expected | dict.fromkeys(range(10, 20))


@given(manifests_with_pairs(), st.integers(0, 5))
@settings(max_examples=40)
def test_units_are_what_links_and_groups_connect(made: tuple[Manifest, list[tuple[int, int]]], seed: int) -> None:
    """Two pictures have one unit if and only if a path of pairs and equal groups leads from one to the other."""
    manifest, pairs = made
    assigned = assign_splits(manifest, PARAMS, seed, pairs)
    images = [image for part in assigned.splits.values() for image in part.images] + list(assigned.dropped)
    links = [*pairs, *((a.id, b.id) for a, b in combinations(images, 2) if a.group and a.group == b.group)]
    parts = {image.id: {image.id} for image in images}
    for a, b in links:
        joined = parts[a] | parts[b]
        parts |= dict.fromkeys(joined, joined)
    components = {frozenset(part) for part in parts.values()}
    unit_of = {image.id: unit_name(image) for image in images}
    assert all(len({unit_of[number] for number in component}) == 1 for component in components)
    assert len(set(unit_of.values())) == len(components)
    assert len({unit_of[i.id] for part in assigned.splits.values() for i in part.images}) == sum(
        len({unit_of[i.id] for i in part.images}) for part in assigned.splits.values()
    ), "no unit is in two splits"
