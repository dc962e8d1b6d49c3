"""On what a classifier's confidence is calibrated."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from headstart.base.arrays import Floats
from headstart.evaluation.classifier.calibration import CalibrationAnswers, choose_calibration
from headstart.metrics.calibration import SplitLogits
from synthetic_logits import make_logits


def crossed(**raw: Floats) -> Any:
    """Cross-validation of four pictures, a to d, in three units."""
    return SimpleNamespace(
        examined=SimpleNamespace(
            images=[SimpleNamespace(sha256=name) for name in "abcd"],
            targets=np.array([0, 1, 2, 0]),
            units=np.array([5, 5, 6, 7]),
        ),
        predictions={name: SimpleNamespace(raw=probabilities) for name, probabilities in raw.items()},
    )


def test_answers_out_of_fold_of_the_same_kind_of_model_but_for_the_test_pictures() -> None:
    val = SplitLogits(np.eye(3), np.arange(3), np.eye(3), np.arange(3))
    logits = {name: np.random.default_rng(seed).normal(size=(4, 3)) for seed, name in enumerate(("head", "fine_tuned"))}
    found = crossed(**{name: softmax(of, axis=1) for name, of in logits.items()})
    for model, own in logits.items():
        chosen = choose_calibration(val, np.arange(3), found, ["c"], model=model)
        assert (chosen.labels.tolist(), chosen.units.tolist()) == ([0, 1, 0], [5, 5, 7])
        assert chosen.logits == pytest.approx(log_softmax(own, axis=1)[[0, 1, 3]])
        assert chosen.what.startswith("of cross-validation")
    del found.predictions["fine_tuned"]
    for none in (found, None):
        chosen = choose_calibration(val, np.array([4, 4, 9]), none, ["c"], model="fine_tuned")
        assert chosen.what == "of the validation set", "the head's answers are no fine-tuned model's"
        assert (chosen.logits.tolist(), chosen.units.tolist()) == (np.eye(3).tolist(), [4, 4, 9])


def test_a_probability_of_zero_leaves_the_temperature_finite() -> None:
    val = SplitLogits(np.eye(3), np.arange(3), np.eye(3), np.arange(3))
    raw = np.array([[1.0, 0, 0], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])  # the last is wrong, surely so
    chosen = choose_calibration(val, np.arange(3), crossed(head=raw), [], model="head")
    assert 1 < chosen.temperature <= 20
    assert np.isfinite(chosen.probabilities).all()


@pytest.mark.parametrize(("scale", "was"), [(4.0, "overconfident"), (0.5, "underconfident")])
def test_the_temperature_undoes_a_wrong_scale(scale: float, was: str) -> None:
    logits = make_logits(1, 3, seed=0, scale=1.5, val=4000)  # their softmax is the labels' probability
    answers = CalibrationAnswers(logits.val * scale, logits.val_labels, np.arange(4000), "of the validation set")
    assert answers.temperature == pytest.approx(scale, rel=0.1)
    assert answers.probabilities == pytest.approx(softmax(logits.val, axis=1), abs=0.05)
    assert (
        f"fitted on 4,000 pictures of the validation set; uncalibrated, the model was {was} there" in answers.sentence
    )
    assert "So few groups" not in answers.sentence


def test_few_groups_and_no_mistake_are_told() -> None:
    few = CalibrationAnswers(np.eye(2)[[0, 1, 0]], np.array([0, 1, 1]), np.array([0, 0, 1]), "of the validation set")
    assert "fitted on 3 pictures in 2 independent groups of the validation set" in few.sentence
    assert "So few groups fit it badly" in few.sentence
    assert few.sentence.endswith("evaluate.folds with folds_fine_tune would fit it on all groups.")
    right = CalibrationAnswers(np.eye(2) * 0.1, np.arange(2), np.arange(2), "of the validation set")
    assert right.temperature < 1
    sure = CalibrationAnswers(np.eye(2) * 50, np.arange(2), np.arange(2), "of the validation set")
    assert sure.sentence.startswith("The temperature stays 1: there is no mistake on 2 pictures of the validation")
