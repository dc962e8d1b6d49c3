"""Folds: every picture once, whole units, every label learnt, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from examined_pictures import LABELS, gaussian, image
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.cross_validation.folds import assign_folds, choose_inner_val, examine

SETS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 30), st.booleans()), min_size=8, max_size=60
)  # label, group, pinned to test


def images_of(rows: list[tuple[int, int, bool]]) -> list[Image]:
    return [
        image(n, LABELS[label], group=str(group), split="test" if pinned else None)
        for n, (label, group, pinned) in enumerate(rows)
    ]


@given(SETS, st.integers(2, 10), st.integers(0, 5))
def test_every_picture_is_examined_once_and_its_unit_with_it(
    rows: list[tuple[int, int, bool]], folds: int, seed: int
) -> None:
    images = images_of(rows)
    try:
        examined, line = examine(images, LABELS, folds, seed)
    except UserError:
        free = [(label, group) for label, group, pinned in rows if not pinned]
        groups = [{group for label, group in free if label == number} for number in (0, 1)]
        assume(min(map(len, groups)) < 2)  # nothing else may be refused
        return
    assert [one.id for one in examined.images] == [one.id for one in images if one.split != "test"]
    assert set(examined.fold.tolist()) == set(range(examined.folds))
    assert bool(line) == (examined.folds < folds)
    for fold in range(examined.folds):
        inside = examined.fold == fold
        assert not set(examined.units[inside]) & set(examined.units[~inside]), "a unit in train and test of a fold"
        assert set(examined.targets[~inside]) == {0, 1}, "a model that has not seen every label"


@given(SETS, st.integers(0, 3))
def test_the_inner_validation_set_is_of_whole_units_of_the_other_folds(
    rows: list[tuple[int, int, bool]], seed: int
) -> None:
    try:
        examined, _ = examine(images_of(rows), LABELS, 3, seed)
        val = choose_inner_val(examined, 0, 0.2, seed)
    except UserError:
        return
    inside = examined.fold == 0
    assert val.any()
    assert not (val & inside).any()
    learning = ~inside & ~val
    assert not set(examined.units[val]) & set(examined.units[learning])
    assert set(examined.targets[learning]) == {0, 1}


def test_the_folds_are_scikit_learns() -> None:
    examined, features = gaussian(90, 4, per_unit=3)
    expected = StratifiedGroupKFold(5, shuffle=True, random_state=4).split(features, examined.targets, examined.units)
    for number, (_, inside) in enumerate(expected):
        assert np.flatnonzero(examined.fold == number).tolist() == sorted(inside)


def test_labels_are_spread_evenly() -> None:
    examined, _ = gaussian(100, 0)
    for fold in range(5):
        assert np.bincount(examined.targets[examined.fold == fold]).tolist() == [10, 10]


def test_the_same_seed_gives_the_same_folds() -> None:
    images = [image(n, LABELS[n % 2]) for n in range(40)]
    first, again, other = (examine(images[::step], LABELS, 5, seed)[0] for step, seed in ((1, 0), (-1, 0), (1, 1)))
    assert np.array_equal(first.fold, again.fold)
    assert first.images == again.images
    assert not np.array_equal(first.fold, other.fold)


def test_pinned_test_pictures_stay_apart() -> None:
    images = [image(n, LABELS[n % 2], split="test" if n >= 20 else "train") for n in range(30)]
    assert len(examine(images, LABELS, 5, 0)[0].images) == 20


def test_a_label_of_few_units_makes_fewer_folds_with_one_line() -> None:
    images = [image(n, "ant") for n in range(30)] + [image(30 + n, "bee", group=str(n % 3)) for n in range(9)]
    examined, line = examine(images, LABELS, 5, 0)
    assert examined.folds == 3
    assert line == "evaluate: evaluate.folds: 5: “bee” has 3 independent pictures or groups; 3 folds"


def test_a_label_of_one_unit_is_refused() -> None:
    images = [image(n, "ant") for n in range(30)] + [image(30 + n, "bee", group="all") for n in range(9)]
    with pytest.raises(UserError, match=r"evaluate.folds: 5: 'bee' has 1 independent picture or group .* give 0"):
        examine(images, LABELS, 5, 0)


def test_a_fold_without_pictures_or_labels_is_none() -> None:
    """Two groups that both labels share cannot be dealt to three folds, though each label has two units."""
    targets = np.array([0, 1, 0, 1])
    assert assign_folds(targets, np.array([0, 0, 1, 1]), 3, 0) is None
