"""Figures out of fold: paired differences over units; one and the same model has no difference."""

import numpy as np
import pytest

from examined_pictures import LABELS, gaussian
from headstart.cross_validation.calibration import calibrate_out_of_fold
from headstart.cross_validation.figures import compare, measure, widen
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import compute_metrics
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import SAME_MODEL, difference_interval, mean_interval


def predictions(seed: int = 0, *, threshold: float = 1.0, per_unit: int = 1) -> ClassifierPredictions:
    examined, features = gaussian(100, seed, per_unit=per_unit)
    return calibrate_out_of_fold(np.stack([0 * features[:, 0], features[:, 0] - threshold], axis=1), examined)


def test_the_difference_is_picture_by_picture() -> None:
    measured, other = predictions(), predictions(threshold=2.5)
    found = compare(other, measured)
    assert found.accuracy == widen(mean_interval(other.correct, other.units), 100)
    assert found.difference == widen(difference_interval(other.correct - measured.correct, other.units), 100)
    assert found.difference.value == pytest.approx(other.correct.mean() - measured.correct.mean())
    assert found.difference.high is not None
    assert found.difference.high < 0, "so far off that it cannot be chance"
    own = other.calibrated[np.arange(100), other.labels]
    assert found.log_loss.value == pytest.approx(-np.log(own).mean())


def test_alike_pictures_widen_the_intervals() -> None:
    """The same answers, in units of ten that are right or wrong together."""
    alone = predictions()
    together = ClassifierPredictions(
        alone.labels, alone.raw, alone.calibrated, 1.0, np.argsort(np.argsort(alone.correct, kind="stable")) // 10
    )
    narrow, wide = (compare(one, one).accuracy for one in (alone, together))
    assert narrow.value == wide.value
    assert wide.high is not None
    assert wide.low is not None
    assert narrow.high is not None
    assert narrow.low is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("pictures", "factor"), [(10, 2.2**0.5), (40, 1.45**0.5), (1000, 1.21**0.5)])
def test_intervals_are_widened_where_there_are_few_pictures(pictures: int, factor: float) -> None:
    found = widen(Estimate(0.8, 0.7, 0.85), pictures)
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((0.8 - 0.1 * factor, 0.8 + 0.05 * factor))


def test_a_share_stays_one() -> None:
    found = widen(Estimate(0.98, 0.9, 1.0, note="only 10 units"), 10)
    assert found.low == pytest.approx(0.98 - 0.08 * 2.2**0.5)
    assert (found.high, found.note) == (1.0, "only 10 units")
    assert widen(Estimate(None, absent="no picture"), 10) == Estimate(None, absent="no picture")


def test_all_intervals_of_the_measured_model_are_widened() -> None:
    own = predictions()
    found, plain = measure(own, LABELS, 0).estimates(), compute_metrics(own, LABELS, 0).estimates()
    assert set(found) >= {"accuracy", "balanced_accuracy", "roc_auc", "log_loss", "brier_score"}
    assert found == {name: widen(one, 100) for name, one in plain.items()}
    assert found["accuracy"] != plain["accuracy"]


def test_intervals_of_a_label_are_widened_as_of_its_own_pictures() -> None:
    own = predictions()
    found, plain = measure(own, LABELS, 0).per_class, compute_metrics(own, LABELS, 0).per_class
    for name in LABELS:
        support = plain[name].support
        assert found[name].support == support == np.count_nonzero(own.labels == LABELS.index(name))
        for figure in ("precision", "recall", "f1"):
            assert getattr(found[name], figure) == widen(getattr(plain[name], figure), support)
            assert getattr(found[name], figure) != getattr(plain[name], figure)


def test_one_and_the_same_model_has_no_difference() -> None:
    assert compare(predictions(), predictions()).difference is SAME_MODEL
