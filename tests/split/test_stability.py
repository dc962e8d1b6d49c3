"""A picture's split hangs on its own hash: what is added or taken away moves few others."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.manifest import Image, Manifest, Split
from headstart.params.root import SplitParams
from headstart.split.assign import assign_splits
from manifests import boxed, record, records

PARAMS = SplitParams(train=0.7, val=0.15, test=0.15)
SHARES: dict[Split, float] = {"train": 0.7, "val": 0.15, "test": 0.15}


def where(manifest: Manifest, *, params: SplitParams = PARAMS, boxes: bool = False) -> dict[str, Split]:
    """sha256 -> split."""
    assigned = assign_splits(manifest, params, 1, [], boxes=boxes)
    return {image.sha256: name for name, part in assigned.splits.items() for image in part.images}


def moved(before: dict[str, Split], after: dict[str, Split]) -> int:
    return sum(before[key] != after[key] for key in before.keys() & after.keys())


def made(counts: list[int]) -> list[Image]:
    """So many pictures of each label."""
    labels = [f"label {label}" for label, count in enumerate(counts) for _ in range(count)]
    return [record(n, label) for n, label in enumerate(labels)]


@st.composite
def shares(draw: st.DrawFn) -> SplitParams:
    val, test = draw(st.floats(0.02, 0.45)), draw(st.floats(0.02, 0.45))
    return SplitParams(train=1 - val - test, val=val, test=test)


@given(st.lists(st.integers(3, 90), min_size=1, max_size=5), st.integers(0, 10**6), shares())
@settings(max_examples=150, deadline=None)
def test_one_more_picture_moves_at_most_two_others(counts: list[int], number: int, params: SplitParams) -> None:
    images = made(counts)
    added = record(10**6 + number, f"label {number % len(counts)}")
    before, after = where(records(*images), params=params), where(records(*images, added), params=params)
    assert moved(before, after) <= 2


def test_of_300_pictures_one_more_or_one_less_moves_at_most_two_others() -> None:
    images = made([100, 150, 50])
    before = where(records(*images))
    assert Counter(before.values()) == {"train": 210, "val": 45, "test": 45}
    for number in range(40):
        added = record(1000 + number, f"label {number % 3}")
        assert moved(before, where(records(*images, added))) <= 2
        del_one = [*images[: 7 * number], *images[7 * number + 1 :]]
        assert moved(before, where(records(*del_one))) <= 2


def test_twenty_more_pictures_move_few() -> None:
    images = made([150, 150])
    added = [record(1000 + n, f"label {n % 2}") for n in range(20)]
    assert moved(where(records(*images)), where(records(*images, *added))) <= 12


@given(st.lists(st.integers(3, 90), min_size=1, max_size=6), shares())
@settings(max_examples=150, deadline=None)
def test_each_label_has_its_shares_within_one_picture_and_at_least_one(counts: list[int], params: SplitParams) -> None:
    images = made(counts)
    found = Counter(
        (image.label, where_one) for image, where_one in zip(images, _in_order(images, params), strict=True)
    )
    for label, count in enumerate(counts):
        for name in SHARES:
            asked, got = count * getattr(params, name), found[f"label {label}", name]
            assert got >= 1
            assert abs(got - asked) < 1 or min(count * getattr(params, one) for one in SHARES) < 1


def _in_order(images: list[Image], params: SplitParams) -> list[Split]:
    found = where(records(*images), params=params)
    return [found[image.sha256] for image in images]


@pytest.mark.parametrize("labels", [2, 3, 4, 6, 10, 20, 50])
def test_rounding_of_many_labels_does_not_add_up(labels: int) -> None:
    """30 of each: val's share of one label is 4.5; rounded alike it would be off by half a picture a label."""
    found = Counter(where(records(*made([30] * labels))).values())
    for name, share in SHARES.items():
        assert abs(found[name] - 30 * labels * share) <= 2


@given(st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_pictures_and_their_ids_change_nothing(rng: random.Random) -> None:
    images = [image.model_copy(update={"group": rng.choice([None, None, "a", "b"])}) for image in made([30, 12])]
    before = where(records(*images))
    rng.shuffle(images)
    renumbered = [image.model_copy(update={"id": number}) for number, image in enumerate(images)]
    assert where(records(*renumbered)) == before


def test_single_pictures_move_no_group_and_make_up_for_its_size() -> None:
    """100 groups of three, of which the cuts divide whole ones, and 60 single pictures that bring the exact shares."""
    grouped = [record(n, group=f"group {n % 100}") for n in range(300)]
    singles = [record(1000 + n) for n in range(60)]
    before = where(records(*grouped, *singles))
    assert Counter(before.values()) == {"train": 252, "val": 54, "test": 54}
    for number in range(30):
        assert moved(before, where(records(*grouped, *singles, record(2000 + number)))) <= 2


def test_a_group_that_grows_keeps_its_split() -> None:
    images = [record(n, group=f"patient {n % 40}") for n in range(200)]
    before = where(records(*images))
    for number in range(20):
        after = where(records(*images, record(1000 + number, group=f"patient {number}")))
        assert after[f"{number}"] == after[f"{1000 + number}"]
        assert moved(before, after) <= 10, "at most a patient at each cut"


def test_a_picture_that_changes_its_stratum_mostly_keeps_its_split() -> None:
    """Seven pictures show a and b, and are divided with a's; with one more they are a combination of their own."""
    texts = ["a"] * 100 + ["b"] * 60 + ["ab"] * 7
    before, after = where(boxed(*texts), boxes=True), where(boxed(*texts, "ab"), boxes=True)
    assert moved(before, after) <= 6


@pytest.mark.parametrize("seed", range(5))
def test_one_more_picture_with_boxes_of_several_labels_moves_few(seed: int) -> None:
    rng = random.Random(seed)
    texts = ["".join(letter for letter in "abcdef" if rng.random() < 0.25) for _ in range(300)]
    before, after = where(boxed(*texts), boxes=True), where(boxed(*texts, texts[seed]), boxes=True)
    assert moved(before, after) <= 4


def placed(images: list[Image], seeds: int) -> dict[str, Counter[Split]]:
    """How often each group is in each split, over so many seeds."""
    found: dict[str, Counter[Split]] = {}
    for seed in range(seeds):
        assigned = assign_splits(records(*images), PARAMS, seed, [])
        for name, part in assigned.splits.items():
            for group in {image.group for image in part.images if image.group}:
                found.setdefault(group, Counter())[name] += 1
    return found


def test_a_split_of_groups_hangs_on_the_seed() -> None:
    """44 groups of 48 to 72 pictures: each is in test for some of 60 seeds, and none for most of them."""
    sizes = [60] * 27 + [59] * 14 + [48, 58, 72]
    images = [record(n, group=f"{g}") for n, g in enumerate(g for g, size in enumerate(sizes) for _ in range(size))]
    found = placed(images, 60)
    assert len(found) == 44
    for often in found.values():
        assert 1 <= often["test"] <= 25, "a share of 0.15: 9 of 60"
        assert often["train"] < 60


def test_large_groups_hang_on_the_seed_where_their_sizes_allow_it() -> None:
    """Six groups of 10 to 15 of 100 pictures, most of them larger than an eighth, and 25 single pictures."""
    sizes = [10, 11, 12, 13, 14, 15]
    images = [record(n, group=f"{g}") for n, g in enumerate(g for g, size in enumerate(sizes) for _ in range(size))]
    images += [record(1000 + n) for n in range(25)]
    for often in placed(images, 60).values():
        assert min(often[name] for name in SHARES) >= 2
    for seed in range(20):
        parts = assign_splits(records(*images), PARAMS, seed, []).splits
        for name, share in SHARES.items():
            assert abs(len(parts[name].images) - 100 * share) <= 6, "the single pictures make up for the groups"


def test_a_group_that_fits_one_split_alone_goes_there() -> None:
    images = [*(record(n, group="dog") for n in range(60)), *(record(100 + n) for n in range(40))]
    assert placed(images, 20) == {"dog": Counter({"train": 20})}
