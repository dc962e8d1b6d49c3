"""What 8 bits change: answers, figures, and when a drop is too large."""

import re

import numpy as np
import pytest

from headstart.base.manifest import Image, Manifest, make_categories
from headstart.export.int8 import ModelAnswers, classifier_change, detector_change, refusal
from headstart.export.model_prediction import DetectedBox, ModelPrediction
from headstart.export.predictor import ClassifierOutput, DetectorOutput
from headstart.export.saved_predictions import collect_predictions
from headstart.metrics.intervals import difference_interval, mean_interval

LABELS = ("blue", "red")


def make_test(count: int, unit: int = 1) -> Manifest:
    images = tuple(
        Image(
            id=n,
            file_name=f"{n}.png",
            width=9,
            height=9,
            sha256=f"{n:064x}",
            source="",
            label=LABELS[n % 2],
            group=f"{n // unit}",
        )
        for n in range(count)
    )
    return Manifest(images=images, categories=make_categories(LABELS))


def outputs(count: int, wrong: int, confidence: float = 0.9) -> ClassifierOutput:
    """Right on all pictures but the first `wrong`."""
    said = (np.arange(count) + (np.arange(count) < wrong)) % 2
    probabilities = np.where(np.eye(2)[said] == 1, confidence, 1 - confidence).astype(np.float32)
    return ClassifierOutput(np.log(probabilities), probabilities, np.full(count, confidence, np.float32))


@pytest.mark.parametrize("unit", [1, 5])
def test_a_classifiers_change_is_of_the_same_pictures(unit: int) -> None:
    test = make_test(200, unit)
    change = classifier_change(test, LABELS, outputs(200, 4), outputs(200, 9, 0.8), 1.0)
    assert change.parity == {
        "pictures": 200,
        "largest_logit_difference": pytest.approx(np.log(0.8 / 0.1), abs=0.01),
        "largest_probability_difference": pytest.approx(0.7, abs=1e-6),
        "largest_strangeness_difference": pytest.approx(0.1, abs=1e-6),
        "same_label": 195,
    }
    assert change.metric == pytest.approx((0.98, 0.955))
    differences = np.where((np.arange(200) >= 4) & (np.arange(200) < 9), -1.0, 0.0)
    expected = difference_interval(differences, np.arange(200) // unit)
    found = change.figures["difference"]
    assert [found["accuracy"], found["accuracy_low"], found["accuracy_high"]] == pytest.approx(
        [expected.value, expected.low, expected.high], abs=1e-6
    )
    assert "coverage" not in change.figures, "there are no sets"
    assert found["log_loss"] > 0
    assert found["log_loss_low"] < found["log_loss"] < found["log_loss_high"]


def test_the_interval_of_the_drop_decides() -> None:
    """No picture is lost in either case: of 44 this proves no 3 %, of 400 it does."""
    few, many = (classifier_change(make_test(n), LABELS, outputs(n, 2), outputs(n, 2), 1.0) for n in (44, 400))
    assert refusal(many, "accuracy", 0.03, 400) == ""
    problem = refusal(few, "accuracy", 0.03, 44)
    low = few.difference(1).low
    assert low is not None
    assert problem.startswith(f"params.yaml: export.max_drop: 0.03: int8 may cost up to {-low:.4f} of test accuracy ")
    assert "\n" not in problem
    needed = int(problem.split("about ")[1].split(" ")[0])
    assert (
        refusal(
            classifier_change(make_test(needed), LABELS, outputs(needed, 2), outputs(needed, 2), 1.0),
            "accuracy",
            0.03,
            needed,
        )
        == ""
    )
    assert 44 < needed < 400


def test_more_pictures_do_not_help_where_the_drop_itself_is_too_large() -> None:
    change = classifier_change(make_test(200), LABELS, outputs(200, 0), outputs(200, 20), 1.0)
    problem = refusal(change, "accuracy", 0.03, 200)
    assert "(1.0000 to 0.9000; " in problem
    assert "about" not in problem


def test_the_prediction_sets_are_measured_on_the_quantized_models_probabilities() -> None:
    """At thresholds of 0.15 sets of 0.9 and 0.1 hold one label, those of 0.8 and 0.2 both."""
    test, thresholds = make_test(100), (0.15, 0.15)
    narrow, wide = outputs(100, 10, 0.9), outputs(100, 10, 0.8)
    expected = mean_interval((np.arange(100) >= 10).astype(np.float64), np.arange(100))
    figures = classifier_change(test, LABELS, wide, narrow, 1.0, thresholds).figures
    assert (figures["coverage"], figures["coverage_fp32"]) == (0.9, 1.0)
    assert (figures["coverage_low"], figures["coverage_high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert classifier_change(test, LABELS, narrow, wide, 1.0, thresholds).figures["coverage"] == 1.0


def test_a_detectors_change_is_of_boxes_and_of_ap() -> None:
    """40 pictures with one box each; int8 finds it with another score, but for one that it puts elsewhere."""
    import synthetic_boxes

    test = synthetic_boxes.random_boxes(1, 40)
    labels = test.labels()

    def predict(moved: int, score: float) -> ModelAnswers:
        most = max(sum(a.image_id == i.id for a in test.annotations) for i in test.images)
        boxes = np.zeros((len(test.images), most, 4), np.float32)
        scores, numbers = np.zeros(boxes.shape[:2], np.float32), np.zeros(boxes.shape[:2], np.int64)
        rows: list[tuple[DetectedBox, ...]] = []
        for place, image in enumerate(test.images):
            own = [a for a in test.annotations if a.image_id == image.id]
            found = []
            for position, annotation in enumerate(own):
                x, y, width, height = annotation.bbox
                x += 5 * width if place < moved else 0
                corners = (x, y, x + width, y + height)
                found.append(DetectedBox(labels[annotation.category_id - 1], score, corners))
                boxes[place, position], scores[place, position] = corners, score
                numbers[place, position] = annotation.category_id - 1
            rows.append(tuple(found))
        saved = collect_predictions(test, labels, [ModelPrediction({}, row) for row in rows])
        return ModelAnswers(DetectorOutput(boxes, scores, numbers), saved)

    fp32 = predict(0, 0.9)
    change = detector_change(test, fp32, predict(3, 0.8), "AP50", 0.5)
    lost = sum(a.image_id in {i.id for i in test.images[:3]} for a in test.annotations)
    assert lost > 0
    assert change.parity["boxes"] == 2 * len(test.annotations)
    assert change.parity["same_box"] <= 2 * (len(test.annotations) - lost)
    assert change.parity["largest_score_difference"] == pytest.approx(0.1)
    difference = change.difference(1)
    assert difference.value is not None
    assert difference.low is not None
    assert difference.high is not None
    assert difference.value == pytest.approx(change.metric[1] - change.metric[0])
    assert difference.low < difference.value < 0
    assert change.figures["AP50_fp32"] == pytest.approx(1)
    unchanged = detector_change(test, fp32, predict(0, 0.8), "AP50", 0.5)
    one, four = (unchanged.difference(times) for times in (1, 4))
    assert one.value == 0
    assert one.low is not None
    assert four.low is not None
    assert one.low < four.low < 0, "40 pictures without a difference do not prove that there is none"
    assert refusal(unchanged, "AP50", -one.low + 1e-6, 40) == ""
    problem = refusal(unchanged, "AP50", -one.low / 3, 40)
    assert "int8 may cost up to" in problem
    assert re.search(r"about \d+ test pictures", problem)
