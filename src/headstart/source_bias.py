"""How well a picture's source can be told from its embedding. Arrays in, numbers out; no disk, no torch.

Own photos and public ones differ in camera and style, and a network can learn that instead of the labels. Where one
label has pictures of several sources, a plain classifier that tells these apart shows how much there is to be learned.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.bootstrap import draws
from headstart.calibration import Floats, Ints
from headstart.scores import Estimate, estimate

Strings = NDArray[np.str_]

FOLDS = 5
_MOST = 1000  # pictures of one source within a label; more would take minutes and say the same

COINCIDE = "label and source are one: no figure here can tell them apart"
ONE_SOURCE = "all of one source: nothing to tell apart"
TOO_FEW = f"fewer than {FOLDS} pictures, or groups of them, from a second source"


@dataclass(frozen=True)
class LabelSources:
    """Where one label's pictures come from, and how well that shows.

    Attributes:
        label: the label.
        sources: source -> different pictures from it.
        told: balanced accuracy in telling the compared sources apart; 1 / their number is guessing.
        compared: source -> pictures that `told` is of; empty where there is no such figure.
    """

    label: str
    sources: Mapping[str, int]
    told: Estimate
    compared: Mapping[str, int] = field(default_factory=dict)

    @property
    def coincide(self) -> bool:
        """All its pictures are of one source, and no other label's are."""
        return self.told.absent == COINCIDE


def collection(source: str) -> str:
    """The source as it matters here: the splits of Open Images are draws from one collection."""
    return "open_images" if source.startswith("open_images:") else source


def source_figures(
    features: Floats,
    labels: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str | None],
    *,
    tested: Collection[tuple[str, str]] = (),
    resamples: int,
    seed: int,
) -> tuple[LabelSources, ...]:
    """Label by label, how well the source can be told; nothing where all pictures are of one source.

    Args:
        features: (n, features) embeddings of the pictures that were learned from.
        labels: (n,) of them.
        sources: (n,) of them.
        groups: (n,) of them, or None: pictures of one group of a source stay in one fold.
        tested: (label, source) of the test pictures: they too can set a label and its source apart.
        resamples: of the intervals.
        seed: of folds and intervals; the same seed gives the same figures.
    """
    if len(set(sources)) < 2:
        return ()
    origin, units = np.array(sources), _units(sources, groups)
    pairs = {*zip(labels, sources, strict=True), *tested}
    found = []
    for label in sorted(set(labels)):
        rows = np.flatnonzero(np.array(labels) == label)
        counts = _counts(origin[rows])
        kept = _comparable(rows, origin, units, seed)
        compared = _counts(origin[kept])
        if len(counts) < 2:
            told = Estimate(None, absent=COINCIDE if _alone(label, pairs) else ONE_SOURCE)
        elif len(compared) < 2:
            told = Estimate(None, absent=TOO_FEW)
        else:
            told = _told(features[kept], origin[kept], units[kept], resamples, seed)
        found.append(LabelSources(label, counts, told, compared if told.value is not None else {}))
    return tuple(found)


def _units(sources: Sequence[str], groups: Sequence[str | None]) -> Ints:
    """(n,) numbers of what stays together: a group of a source; a picture without one is alone."""
    keys = [
        (source, group, None if group else n) for n, (source, group) in enumerate(zip(sources, groups, strict=True))
    ]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def _counts(sources: Strings) -> dict[str, int]:
    return dict(sorted(Counter(sources.tolist()).items()))


def _alone(label: str, pairs: Collection[tuple[str, str]]) -> bool:
    """The label has one source, and the source has one label."""
    own = {source for name, source in pairs if name == label}
    return len(own) == 1 and {name for name, source in pairs if source in own} == {label}


def _comparable(rows: Ints, origin: Strings, units: Ints, seed: int) -> Ints:
    """Of a label's rows, those of sources that every fold can have some of, and at most `_MOST` of each."""
    kept: list[int] = []
    for source in np.unique(origin[rows]):
        own = rows[origin[rows] == source]
        if len(np.unique(units[own])) >= FOLDS:
            kept += np.random.default_rng(seed).permutation(own)[:_MOST].tolist()
    return np.array(sorted(kept), dtype=int)


def _told(features: Floats, origin: Strings, units: Ints, resamples: int, seed: int) -> Estimate:
    """Balanced accuracy of logistic regression on pictures of folds that it was not fitted to.

    The interval is a percentile bootstrap over its answers, a group drawn as a whole: it says how far the figure hangs
    on which pictures these are.
    """
    names, wanted = np.unique(origin, return_inverse=True)
    folds = _folds(wanted, units, seed)
    right = np.zeros(len(wanted))
    for fold in range(FOLDS):
        held = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        model.fit(features[~held], wanted[~held])
        right[held] = model.predict(features[held]) == wanted[held]
    there = np.eye(len(names))[wanted]
    _, unit = np.unique(units, return_inverse=True)
    weights = np.concatenate(list(draws(int(unit.max()) + 1, resamples, seed)))[:, unit]
    return estimate(_balanced(np.ones((1, len(wanted))), there, right)[0], _balanced(weights, there, right))


def _balanced(weights: Floats, there: Floats, right: Floats) -> Floats:
    """Mean over the sources of the share told rightly, (b,), under each row of weights (b, n)."""
    with np.errstate(invalid="ignore"):  # 0/0: a source that the row lacks
        return np.asarray(np.nanmean((weights @ (there * right[:, None])) / (weights @ there), axis=1))


def _folds(wanted: Ints, units: Ints, seed: int) -> Ints:
    """(n,) folds: each source's units are shuffled and dealt out in turn, so every fold has some of every source."""
    random = np.random.default_rng(seed)
    fold_of: dict[int, int] = {}
    for source in np.unique(wanted):
        own = random.permutation(np.unique(units[wanted == source]))
        fold_of |= {unit: turn % FOLDS for turn, unit in enumerate(own.tolist())}
    return np.array([fold_of[unit] for unit in units.tolist()])
