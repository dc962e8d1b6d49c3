"""Whether a model is better than another one: both at the same exam, picture by picture."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.bootstrap import draws, figures
from headstart.calibration import Answers, Floats
from headstart.coco import Manifest
from headstart.detections import Detection
from headstart.scores import Estimate, estimate
from headstart.sitting import Sitting

LOWER = {"log_loss"}  # figures of which less is better


@dataclass(frozen=True)
class Comparison:
    """Two models' figure on the same test pictures; `gain` is what the first has over the second, positive: better."""

    mine: float
    theirs: float
    gain: Estimate

    @property
    def better(self) -> bool:
        """The whole 95 % interval of the gain lies above 0: the choice of test pictures hardly explains it."""
        return self.gain.low is not None and self.gain.low > 0


def compare(test: Manifest, mine: Sitting, theirs: Sitting, metric: str, resamples: int, seed: int) -> Comparison:
    """The paired difference of two models that sat the same exam.

    The interval is a percentile bootstrap interval (Efron 1979): the test pictures are drawn anew `resamples` times
    with replacement, and both models are judged on the same drawing, so that hard pictures are hard for both.
    """
    assert mine.exam == theirs.exam, "two exams"
    assert set(mine.labels) == set(theirs.labels), "two sets of labels"
    sign = -1 if metric in LOWER else 1
    one, other = (_figure(test, sitting, metric) for sitting in (mine, theirs))
    count = len(test.images)
    once = np.ones((1, count))
    values = one(once)[0], other(once)[0]
    width = max(sum(map(len, sitting.boxes.values())) for sitting in (mine, theirs))
    samples = np.concatenate([one(weights) - other(weights) for weights in draws(count, resamples, seed, width)])
    return Comparison(values[0], values[1], estimate(sign * (values[0] - values[1]), sign * samples))


def figure(test: Manifest, sitting: Sitting, metric: str) -> float:
    """One model's figure on the test pictures, as `compare` has it."""
    return float(_figure(test, sitting, metric)(np.ones((1, len(test.images))))[0])


def _figure(test: Manifest, sitting: Sitting, metric: str) -> Callable[[Floats], Floats]:
    """The figure under each row of weights (b, pictures)."""
    if sitting.probabilities:
        answers = _answers(test, sitting)
        return lambda weights: figures(answers, weights)[metric]
    from headstart import box_scores
    from headstart.matches import match

    matches = match(test, _detections(test, sitting))
    return lambda weights: box_scores.resampled(matches, weights)[metric]


def _answers(test: Manifest, sitting: Sitting) -> Answers:
    shares = np.array([sitting.probabilities[image.sha256] for image in test.images])
    labels = np.array([sitting.labels.index(image.label or "") for image in test.images])
    return Answers(labels, shares, shares, 1.0)


def _detections(test: Manifest, sitting: Sitting) -> list[Detection]:
    numbers = {category.name: category.id for category in test.categories}
    return [
        Detection(
            image_id=image.id, category_id=numbers[sitting.labels[label]], bbox=(x, y, width, height), score=score
        )
        for image in test.images
        for label, score, x, y, width, height in sitting.boxes[image.sha256]
    ]
