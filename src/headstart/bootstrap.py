"""A classifier's figures on many resamples of its test pictures at once.

A resample is how often it drew each picture, one row of weights; a figure is then a product of matrices.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from headstart.calibration import BINS, Answers, Floats, Ints, confidence_bin

_BLOCK = 1_000_000  # counts of one block of resamples: the arrays stay small however many pictures there are


def draws(pictures: int, times: int, seed: int, width: int = 0) -> Iterator[Floats]:
    """Blocks of (b, pictures) counts, `times` rows in all, each row summing to `pictures`.

    `width` is how many numbers are made of a row, where they are more than the pictures: the blocks are smaller then,
    the rows the same.
    """
    random = np.random.default_rng(seed)
    block = max(1, _BLOCK // max(pictures, width))
    for begin in range(0, times, block):
        rows = min(block, times - begin)
        yield random.multinomial(pictures, np.full(pictures, 1 / pictures), size=rows).astype(np.float64)


def figures(answers: Answers, weights: Floats) -> dict[str, Floats]:
    """Each figure under each row of weights (b, n): what scikit-learn gives with `sample_weight`, for all rows at once.

    Class means are over the classes that the row has; ROC AUC is NaN where it has one class only.
    """
    labels, correct, total = answers.labels, answers.correct, weights.sum(axis=1)
    mine = answers.raw[np.arange(len(labels)), labels]
    tiny = np.finfo(np.float64).eps  # clipped as scikit-learn does
    there = np.eye(answers.raw.shape[1])[labels]
    with np.errstate(invalid="ignore"):  # 0/0: a class that the row lacks
        recall = (weights @ (there * correct[:, None])) / (weights @ there)
    return {
        "accuracy": weights @ correct / total,
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "roc_auc": _roc_auc(weights, answers.raw, labels),
        "log_loss": weights @ -np.log(np.clip(mine, tiny, 1 - tiny)) / total,
        "ece": _ece(weights, answers.raw, correct) / total,
        "ece_calibrated": _ece(weights, answers.calibrated, correct) / total,
    }


def _ece(weights: Floats, probabilities: Floats, correct: Floats) -> Floats:
    """Sum over the bins of |right answers - confidence|, (b,)."""
    confidence = probabilities.max(axis=1)
    bins = np.eye(BINS)[confidence_bin(confidence)]
    return np.asarray(np.abs(weights @ (bins * (correct - confidence)[:, None])).sum(axis=1))


def _roc_auc(weights: Floats, probabilities: Floats, labels: Ints) -> Floats:
    """Of the last of two classes, else the mean over one-vs-rest, (b,)."""
    classes = probabilities.shape[1]
    drawn = np.ascontiguousarray(weights.T)  # picking pictures is picking rows, several times as fast
    wanted = [1] if classes == 2 else range(classes)
    areas = np.stack([_area(drawn, probabilities[:, c], labels == c) for c in wanted])
    known = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, areas, 0).sum(axis=0) / known.sum(axis=0))


def _area(drawn: Floats, scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Area under the ROC curve: share of (positive, negative) pairs in the right order, ties half. (n, b) -> (b,)."""
    negative = np.flatnonzero(~positive)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    lower = np.zeros((len(negative) + 1, drawn.shape[1]))
    np.cumsum(drawn[negative], axis=0, out=lower[1:])
    below = lower[np.searchsorted(scores[negative], scores[positive], "left")]
    not_above = lower[np.searchsorted(scores[negative], scores[positive], "right")]
    with np.errstate(invalid="ignore"):  # 0/0: a row without positives or negatives
        pairs = drawn[positive].sum(axis=0) * lower[-1]
        return np.asarray((drawn[positive] * (below + not_above) / 2).sum(axis=0) / pairs)
