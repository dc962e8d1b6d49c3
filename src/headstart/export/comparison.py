"""Whether one model is better than another on the same test pictures: a paired test of a metric's difference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.base.manifest import Image, Manifest
from headstart.base.units import unit_name
from headstart.export.saved_predictions import SavedPredictions
from headstart.export.weighted_metric import to_classifier_predictions, weighted_metric_of_both
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.paired_test import PairedTest, sign_flip_test, swap_test
from headstart.metrics.slices import Slicing

LOWER_IS_BETTER = {"log_loss"}
LEAST_COMMON = 0.5  # of a test set: where fewer pictures are in both models' test sets, they are not compared


@dataclass(frozen=True)
class Comparison:
    """A metric of two models on the same test set.

    Attributes:
        candidate: the metric of one model.
        baseline: of the other.
        gain: their difference; positive where the candidate is better, also by a metric that is lower then.
        test: the two-sided paired test of the difference.
        counts: of accuracy, the pictures that only the candidate has right, and those that only the baseline has.
    """

    candidate: float
    baseline: float
    gain: float
    test: PairedTest
    counts: tuple[int, int] | None = None

    def is_better(self, level: float) -> bool:
        """Whether the candidate is better, and chance alone would give such a difference with at most this p-value."""
        return self.gain > 0 and self.test.p <= level

    def is_worse(self, level: float) -> bool:
        """The same of the baseline."""
        return self.gain < 0 and self.test.p <= level


def common_test_set(test: Manifest, candidate: SavedPredictions, baseline: SavedPredictions) -> Manifest | None:
    """The pictures that neither model has learned from: those of both test sets, with today's annotations.

    None where they are less than half of the test set, or lack one of its labels.

    Args:
        test: the candidate's test set.
        candidate: predictions of one model for it.
        baseline: predictions of the other for its own test set.
    """
    known = candidate.pictures() & baseline.pictures()
    common = test.subset(image for image in test.images if image.sha256 in known)
    if len(common.images) < LEAST_COMMON * len(test.images) or _labels(common) != _labels(test):
        return None
    return common


def _labels(manifest: Manifest) -> set[object]:
    """The labels of pictures, and the categories of boxes."""
    return {image.label for image in manifest.images} | {box.category_id for box in manifest.annotations}


def compare_predictions(
    test: Manifest, candidate: SavedPredictions, baseline: SavedPredictions, metric: str, level: float, seed: int
) -> Comparison:
    """The paired difference of two models, and its p-value; the pictures of a unit count as one observation.

    Args:
        test: the pictures to compare on.
        candidate: predictions of one model for them, and maybe others.
        baseline: predictions of the other; the same labels in any order.
        metric: accuracy, balanced_accuracy, roc_auc or log_loss of classifiers; AP, AP50 or AP75 of detectors.
        level: the p-value that will be asked for: random permutations are so many that it can be reached.
        seed: of random permutations.
    """
    assert {image.sha256 for image in test.images} <= candidate.pictures() & baseline.pictures(), "two test sets"
    assert set(candidate.labels) == set(baseline.labels), "two sets of labels"
    sign, units = -1 if metric in LOWER_IS_BETTER else 1, common_units(test.images, candidate, baseline)
    if metric in _PICTURE_VALUES:
        first, second = (_PICTURE_VALUES[metric](to_classifier_predictions(test, m)) for m in (candidate, baseline))
        paired = sign_flip_test(first - second, units, level=level, seed=seed)
        counts = (int((first > second).sum()), int((first < second).sum())) if metric == "accuracy" else None
        gain = sign * float((first - second).mean())
        return Comparison(float(first.mean()), float(second.mean()), gain, paired, counts)
    function, width = weighted_metric_of_both(test, candidate, baseline, metric)
    differ = np.array([_answer(candidate, image) != _answer(baseline, image) for image in test.images])
    paired = swap_test(function, units, differ, level=level, seed=seed, width=width)
    value, other = function(np.repeat(np.eye(2), len(units), axis=1)).tolist()
    return Comparison(value, other, sign * (value - other), paired)


def worse_slices(
    test: Manifest,
    candidate: SavedPredictions,
    baseline: SavedPredictions,
    metric: str,
    slicings: Sequence[Slicing],
    seed: int,
) -> list[str]:
    """The slices on which the candidate is worse than the baseline: `source phone (0.6000 against 0.8000)`.

    A slice counts where the test on its pictures alone gives a p-value of at most 0.05 divided by the number of slices
    (Bonferroni).

    Args:
        test: the pictures to compare on, as in `compare_predictions`.
        candidate: predictions of one model.
        baseline: predictions of the other.
        metric: as in `compare_predictions`; a slice that lacks a label has no roc_auc, and is not worse by it.
        slicings: divisions of the test pictures.
        seed: of random permutations.
    """
    level = 0.05 / max(1, sum(len(slicing.names) for slicing in slicings))
    found = []
    for slicing in slicings:
        for number, name in enumerate(slicing.names):
            own = test.subset(image for image, of in zip(test.images, slicing.numbers, strict=True) if of == number)
            if slicing.pictures_alone:  # the question is about this group alone, and its pictures are what is drawn
                own = own.model_copy(
                    update={"images": tuple(i.model_copy(update={"unit": i.sha256}) for i in own.images)}
                )
            models = [candidate, baseline]
            if slicing.pictures_alone:
                models = [model.model_copy(update={"units": {}}) for model in models]
            comparison = compare_predictions(own, models[0], models[1], metric, level, seed)
            if comparison.is_worse(level):
                found.append(f"{slicing.key} {name} ({comparison.candidate:.4f} against {comparison.baseline:.4f})")
    return found


def common_units(images: Sequence[Image], *models: SavedPredictions) -> Ints:
    """The number of each picture's unit, (n,): what the manifest or any of the models' files keeps together."""
    numbers = np.arange(len(images))
    for names in (
        [unit_name(image) for image in images],
        *([model.units.get(image.sha256, image.sha256) for image in images] for model in models),
    ):
        first: dict[str, int] = {}
        for position, name in enumerate(names):
            one, other = numbers[first.setdefault(name, position)], numbers[position]
            if one != other:
                numbers[numbers == other] = one
    return numbers


def _balanced(predictions: ClassifierPredictions) -> Floats:
    """Values whose mean is balanced accuracy: right answers, each label's weighted by its rarity."""
    counts = np.bincount(predictions.labels)
    weights = len(predictions.labels) / (np.count_nonzero(counts) * counts[predictions.labels])
    return np.asarray(predictions.correct * weights)


def _losses(predictions: ClassifierPredictions) -> Floats:
    """Cross-entropy of each picture, in nats."""
    epsilon = np.finfo(np.float64).eps  # clipped as scikit-learn does
    normalized = predictions.calibrated / predictions.calibrated.sum(axis=1, keepdims=True)  # they are rounded
    own = normalized[np.arange(len(predictions.labels)), predictions.labels]
    return np.asarray(-np.log(np.clip(own, epsilon, 1 - epsilon)))


# Metrics that are a mean over pictures -> the values of the pictures.
_PICTURE_VALUES: dict[str, Callable[[ClassifierPredictions], Floats]] = {
    "accuracy": lambda predictions: predictions.correct,
    "balanced_accuracy": _balanced,
    "log_loss": _losses,
}


def _answer(model: SavedPredictions, image: Image) -> object:
    """What a model says of a picture, the same whatever the order of its labels."""
    if model.probabilities:
        return dict(zip(model.labels, model.probabilities[image.sha256], strict=True))
    return [(model.labels[label], *row) for label, *row in model.boxes[image.sha256]]
