"""The figures of a classifier's exam, each with its interval. Arrays in, numbers out; no disk, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from headstart.bootstrap import draws, figures
from headstart.calibration import Answers, Floats


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    absent: str = ""


@dataclass(frozen=True)
class ClassScores:
    """One class: None where nothing was predicted (precision) or nothing was there to find (recall)."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Scores:
    """Everything said about one model on the test pictures."""

    pictures: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    roc_auc: Estimate
    log_loss: Estimate
    ece: Estimate
    ece_calibrated: Estimate
    temperature: float
    per_class: dict[str, ClassScores]

    def headline(self) -> dict[str, Estimate]:
        """The figures that carry an interval, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Estimate)}


@dataclass(frozen=True)
class Evaluation:
    """Both models on the same pictures; `difference` is fine-tuned minus head-only, in accuracy."""

    head_only: Scores
    fine_tuned: Scores
    difference: Estimate


def evaluate(head_only: Answers, fine_tuned: Answers, names: Sequence[str], resamples: int, seed: int) -> Evaluation:
    """Score both models and their difference; the same seed gives all three the same resamples."""
    assert np.array_equal(head_only.labels, fine_tuned.labels), "the two models answered different pictures"
    gain = fine_tuned.correct - head_only.correct
    samples = np.concatenate([w @ gain / len(gain) for w in draws(len(gain), resamples, seed)])
    return Evaluation(
        score(head_only, names, resamples, seed),
        score(fine_tuned, names, resamples, seed),
        estimate(gain.mean(), samples),
    )


def score(answers: Answers, names: Sequence[str], resamples: int, seed: int) -> Scores:
    """Every figure of one model.

    Intervals are percentile bootstrap intervals (Efron 1979): the test pictures are drawn anew `resamples` times
    with replacement, and the middle 95 % of what the figure then is, is the interval. Classes that a resample
    happens to miss are left out of its class means. An interval is widened where it misses the figure itself: ECE
    is never negative, so the resamples of a small one lie above it.

    Accuracy, ROC AUC and log loss are of the uncalibrated probabilities (a temperature changes no answer). ROC AUC
    is of the last class where there are two, else the mean over one-vs-rest. ECE is the expected calibration error
    of the top answer over 15 equal bins (Guo et al. 2017).
    """
    assert len(names) == answers.raw.shape[1], f"{len(names)} names for {answers.raw.shape[1]} classes"
    point = _point(answers)
    blocks = [figures(answers, weights) for weights in draws(len(answers.labels), resamples, seed)]
    estimates = {
        name: estimate(value, np.concatenate([block[name] for block in blocks])) for name, value in point.items()
    }
    return Scores(
        pictures=len(answers.labels),
        temperature=answers.temperature,
        per_class=_per_class(answers, names),
        **({"roc_auc": Estimate(None, absent=_no_roc_auc(answers, names))} | estimates),
    )


def _point(answers: Answers) -> dict[str, float]:
    """The figures on the pictures as they are, from scikit-learn; ECE, which it lacks, from the resampling code."""
    labels, raw, predicted = answers.labels, answers.raw, answers.predicted
    classes = np.arange(raw.shape[1])
    once = figures(answers, np.ones((1, len(labels))))
    point = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        # Balanced accuracy is the mean recall; said this way a class without pictures raises no warning.
        "balanced_accuracy": metrics.recall_score(labels, predicted, labels=np.unique(labels), average="macro"),
        "log_loss": metrics.log_loss(labels, raw, labels=classes),
        "ece": once["ece"][0],
        "ece_calibrated": once["ece_calibrated"][0],
    }
    if len(np.unique(labels)) == len(classes):
        positive = raw[:, 1] if len(classes) == 2 else raw
        point["roc_auc"] = metrics.roc_auc_score(labels, positive, multi_class="ovr", labels=classes)
    return {name: float(value) for name, value in point.items()}


def _no_roc_auc(answers: Answers, names: Sequence[str]) -> str:
    missing = [name for number, name in enumerate(names) if number not in answers.labels]
    if not missing:
        return ""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"no test picture of {', '.join(missing[:3])}{more}"


def _per_class(answers: Answers, names: Sequence[str]) -> dict[str, ClassScores]:
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        answers.labels, answers.predicted, labels=np.arange(len(names)), zero_division=np.nan
    )
    return {
        name: ClassScores(_or_none(p), _or_none(r), _or_none(f), int(n))
        for name, p, r, f, n in zip(names, precision, recall, f1, support, strict=True)
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def estimate(value: float, samples: Floats) -> Estimate:
    """A figure with its percentile interval, widened where that misses the figure itself."""
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))
