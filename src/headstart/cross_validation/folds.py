"""Which fold examines which picture: stratified by label, whole units, the same folds for the same seed."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Ints
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.base.units import unit_numbers

_ATTEMPTS = 20  # seeds tried before there are fewer folds: dealing whole units can leave a label in one fold


@dataclass(frozen=True)
class Examined:
    """The pictures that cross-validation examines, each once.

    Attributes:
        images: in the order of their ids.
        labels: names, in the order of the classes.
        targets: class number of each picture, (n,).
        units: number of each picture's unit, (n,).
        fold: by which each picture is examined, (n,), from 0.
    """

    images: tuple[Image, ...]
    labels: tuple[str, ...]
    targets: Ints
    units: Ints
    fold: Ints

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1


def examine(images: Sequence[Image], labels: Sequence[str], folds: int, seed: int) -> tuple[Examined, str]:
    """Deal the pictures that are not pinned to test to folds.

    Args:
        images: of the whole set; those whose source pins them to test stay apart.
        labels: names, in the order of the classes.
        folds: how many are asked for.
        seed: of the dealing.

    Returns:
        the pictures with their folds, and a line that says why there are fewer folds than asked for; else empty.

    Raises:
        UserError: a label has too few units for two folds.
    """
    kept = tuple(sorted((image for image in images if image.split != "test"), key=lambda image: image.id))
    number = {label: index for index, label in enumerate(labels)}
    targets = np.array([number[image.label or ""] for image in kept], dtype=np.int64)
    units = unit_numbers(kept)
    scarcest, possible = _units_of_scarcest_label(targets, units, labels)
    for count in range(min(folds, possible), 1, -1):
        fold = assign_folds(targets, units, count, seed)
        if fold is not None:
            return Examined(kept, tuple(labels), targets, units, fold), _fewer_line(folds, count, possible, scarcest)
    pinned = "; pictures pinned to test stay apart" if len(kept) < len(images) else ""
    raise UserError(
        f"params.yaml: evaluate.folds: {folds}: {scarcest!r} has {possible} independent "
        f"{'picture or group' if possible == 1 else 'pictures or groups'} to deal to them, and a fold is examined by a "
        f"model that has seen every label{pinned}; give 0, or more pictures of it"
    )


def assign_folds(targets: Ints, units: Ints, folds: int, seed: int) -> Ints | None:
    """The fold of each picture (n,), from 0; None where whole units cannot be dealt so that every fold works.

    A fold works where it has a picture and every label has a picture in the other folds. By scikit-learn's
    StratifiedGroupKFold.

    Args:
        targets: class numbers, (n,).
        units: numbers of units, (n,).
        folds: how many, 2 or more.
        seed: of the order in which units are dealt.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    for attempt in range(_ATTEMPTS):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=(seed + attempt) % 2**32)
        fold = np.full(len(targets), -1, dtype=np.int64)
        with warnings.catch_warnings():  # a label with fewer pictures than folds: checked below
            warnings.simplefilter("ignore", UserWarning)
            try:
                parts = list(splitter.split(np.zeros((len(targets), 1)), targets, units))
            except ValueError:  # fewer units, or fewer pictures of every label, than folds
                return None
        for number, (_, examined) in enumerate(parts):
            fold[examined] = number
        if _works(fold, targets, folds):
            return fold
    return None


def _works(fold: Ints, targets: Ints, folds: int) -> bool:
    learned = [set(targets[fold != number].tolist()) for number in range(folds)]
    return all((fold == number).any() for number in range(folds)) and all(
        labels == set(targets.tolist()) for labels in learned
    )


def choose_inner_val(examined: Examined, fold: int, share: float, seed: int) -> Bools:
    """Which of the pictures that a fold learns from are set aside to choose its epoch, (n,): whole units.

    Args:
        examined: the pictures.
        fold: its number.
        share: of the pictures that are set aside, about.
        seed: of the choice.

    Raises:
        UserError: too few units are left for it.
    """
    learning = np.flatnonzero(examined.fold != fold)
    parts = max(2, round(1 / share)) if share > 0 else 2
    for count in range(parts, 1, -1):
        inner = assign_folds(examined.targets[learning], examined.units[learning], count, seed)
        if inner is not None:
            chosen = np.zeros(len(examined.images), dtype=bool)
            chosen[learning[inner == 0]] = True
            return chosen
    raise UserError(
        f"params.yaml: evaluate.folds: {examined.folds}: too few independent pictures or groups to set some aside for "
        "the choice of the epoch in each fold; give evaluate.folds_fine_tune: false and a head that is solved "
        "(model.head.kind: linear), or folds: 0"
    )


def _units_of_scarcest_label(targets: Ints, units: Ints, labels: Sequence[str]) -> tuple[str, int]:
    counts = [len(np.unique(units[targets == number])) for number in range(len(labels))]
    number = int(np.argmin(counts))
    return labels[number], counts[number]


def _fewer_line(asked: int, count: int, possible: int, scarcest: str) -> str:
    if count == asked:
        return ""
    reason = (
        f"“{scarcest}” has {possible} independent pictures or groups"
        if count == possible
        else "dealing whole groups would leave a label in one fold"
    )
    return f"evaluate: evaluate.folds: {asked}: {reason}; {count} folds"
