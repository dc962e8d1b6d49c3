"""Source bias: how well logistic regression predicts a picture's source from its embedding, within one label.

Own photos and public ones differ in camera and style, and a network can learn that instead of the labels. A label with
pictures from several sources shows how much of it there is to learn. Arrays in, numbers out; no torch.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.base.arrays import Floats, Ints
from headstart.metrics.estimate import Estimate
from headstart.metrics.label_shares import balanced_accuracy_interval

Strings = NDArray[np.str_]

FOLDS = 5
_MAX_PER_SOURCE = 1000  # pictures of one source within a label; more would take minutes and change little

CONFOUNDED = "label and source coincide: no metric here can separate them"
ONE_SOURCE = "all from one source: nothing to compare"
TOO_FEW = f"fewer than {FOLDS} pictures, or groups of them, from a second source"


@dataclass(frozen=True)
class LabelSources:
    """The sources of one label's pictures, and how well they can be predicted.

    Attributes:
        label: the label.
        sources: source -> different pictures from it.
        source_accuracy: cross-validated balanced accuracy of predicting the source; 1 / len(compared) is chance.
        compared: source -> pictures that the accuracy is of; empty where it is undefined.
    """

    label: str
    sources: Mapping[str, int]
    source_accuracy: Estimate
    compared: Mapping[str, int] = field(default_factory=dict)

    @property
    def confounded(self) -> bool:
        """Whether all its pictures are from one source, and no other label's are."""
        return self.source_accuracy.absent == CONFOUNDED


def source_collection(source: str) -> str:
    """The collection a source belongs to: the splits of Open Images are samples of one."""
    return "open_images" if source.startswith("open_images:") else source


def measure_source_bias(
    features: Floats,
    labels: Sequence[str],
    sources: Sequence[str],
    groups: Sequence[str | None],
    *,
    tested: Collection[tuple[str, str]] = (),
    seed: int,
) -> tuple[LabelSources, ...]:
    """How well the source can be predicted, label by label; empty where all pictures are from one source.

    Args:
        features: embeddings of the pictures that the model was trained and validated on, (n, features).
        labels: their labels, (n,).
        sources: their sources, (n,).
        groups: their groups or None, (n,): pictures of one group of a source stay in one fold.
        tested: (label, source) of the test pictures, which too can show that a label and its source do not coincide.
        seed: of folds and intervals; the same seed gives the same numbers.
    """
    if len(set(sources)) < 2:
        return ()
    source_array, groups_array = np.array(sources), _group_ids(sources, groups)
    pairs = {*zip(labels, sources, strict=True), *tested}
    by_label = []
    for label in sorted(set(labels)):
        rows = np.flatnonzero(np.array(labels) == label)
        counts = _source_counts(source_array[rows])
        comparable = _comparable_rows(rows, source_array, groups_array, seed)
        compared = _source_counts(source_array[comparable])
        if len(counts) < 2:
            accuracy = Estimate(None, absent=CONFOUNDED if _is_confounded(label, pairs) else ONE_SOURCE)
        elif len(compared) < 2:
            accuracy = Estimate(None, absent=TOO_FEW)
        else:
            accuracy = _cross_validated_accuracy(
                features[comparable], source_array[comparable], groups_array[comparable], seed
            )
        by_label.append(LabelSources(label, counts, accuracy, compared if accuracy.value is not None else {}))
    return tuple(by_label)


def _group_ids(sources: Sequence[str], groups: Sequence[str | None]) -> Ints:
    """Numbers (n,) of what stays in one fold: a group of a source; a picture without a group is alone."""
    keys = [
        (source, group, None if group else n) for n, (source, group) in enumerate(zip(sources, groups, strict=True))
    ]
    number = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys])


def _source_counts(sources: Strings) -> dict[str, int]:
    return dict(sorted(Counter(sources.tolist()).items()))


def _is_confounded(label: str, pairs: Collection[tuple[str, str]]) -> bool:
    """Whether the label has one source, and the source has one label."""
    own = {source for name, source in pairs if name == label}
    return len(own) == 1 and {name for name, source in pairs if source in own} == {label}


def _comparable_rows(rows: Ints, sources: Strings, groups: Ints, seed: int) -> Ints:
    """Of a label's rows those of sources with enough groups for every fold, at most `_MAX_PER_SOURCE` of each."""
    comparable: list[int] = []
    for source in np.unique(sources[rows]):
        own = rows[sources[rows] == source]
        if len(np.unique(groups[own])) >= FOLDS:
            comparable += np.random.default_rng(seed).permutation(own)[:_MAX_PER_SOURCE].tolist()
    return np.array(sorted(comparable), dtype=int)


def _cross_validated_accuracy(features: Floats, sources: Strings, groups: Ints, seed: int) -> Estimate:
    """Balanced accuracy of logistic regression, each picture predicted by the model of the other folds.

    The interval is over the predictions, the pictures of a group being a unit: how far the accuracy depends on which
    pictures these are.
    """
    targets = np.unique(sources, return_inverse=True)[1]
    folds = _stratified_group_folds(targets, groups, seed)
    correct = np.zeros(len(targets))
    for fold in range(FOLDS):
        held_out = folds == fold
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        model.fit(features[~held_out], targets[~held_out])
        correct[held_out] = model.predict(features[held_out]) == targets[held_out]
    return balanced_accuracy_interval(correct, targets, groups)


def _stratified_group_folds(targets: Ints, groups: Ints, seed: int) -> Ints:
    """Folds (n,): the groups of each source, shuffled, go to the folds in turn, so every fold has some of each."""
    rng = np.random.default_rng(seed)
    fold_of: dict[int, int] = {}
    for source in np.unique(targets):
        own = rng.permutation(np.unique(groups[targets == source]))
        fold_of |= {group: turn % FOLDS for turn, group in enumerate(own.tolist())}
    return np.array([fold_of[group] for group in groups.tolist()])
