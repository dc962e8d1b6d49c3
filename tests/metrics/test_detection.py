"""A detector's metrics against pycocotools, torchmetrics and cases worked by hand; their intervals."""

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.detections import Detection
from headstart.base.manifest import Annotation, Image, Manifest
from headstart.metrics.coco_matching import DetectionMatches, match_detections
from headstart.metrics.detection import (
    ClassAP,
    DetectorMetrics,
    ap_difference,
    ap_interval,
    evaluate_detectors,
)
from headstart.metrics.detection_figures import COCO_STATS, weighted_figures
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import SAME_MODEL
from headstart.metrics.threshold import choose_threshold, operating_point
from synthetic_boxes import NAMES, make_detections, manifest, random_boxes, random_detections

CAT, DOG = (10.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)


def compute(truth: Manifest, detections: list[Detection], resamples: int = 100) -> DetectorMetrics:
    matches = match_detections(truth, detections)
    model = (matches, choose_threshold(matches.classes))
    return evaluate_detectors(model, model, truth.labels(), crowds=0, resamples=resamples, seed=0).fine_tuned


# --- point estimates ---


def test_a_case_worked_by_hand() -> None:
    """Two cats; found: one rightly (0.9), one thing that is not there (0.8), the other cat (0.7).

    Precision at the two recalls: 1, then 2/3. Of the 101 recalls 0 … 0.5 are 51, so AP = (51 + 50 * 2/3) / 101.
    """
    truth = manifest([[("cat", CAT)], [("cat", CAT)]], ("cat",))
    detections = make_detections(
        (1, "cat", CAT, 0.9), (2, "cat", (120, 90, 40, 40), 0.8), (2, "cat", CAT, 0.7), names=("cat",)
    )
    values = {name: e.value for name, e in compute(truth, detections).estimates.items()}
    wanted = (51 + 50 * 2 / 3) / 101
    assert [values[name] for name in ("AP", "AP50", "AP75", "AP_medium")] == pytest.approx([wanted] * 4)
    assert (values["AP_small"], values["AP_large"]) == (None, None)
    # One box a picture: of picture 2 it is the wrong one.
    assert [values[name] for name in ("AR_1", "AR_10", "AR_100")] == pytest.approx([0.5, 1, 1])


def test_overlap_by_hand() -> None:
    """IoU 40 * 32 / (40 * 40) = 0.8: found at 0.5 … 0.8, seven of the ten IoUs."""
    truth = manifest([[("cat", CAT)]], ("cat",))
    values = compute(truth, make_detections((1, "cat", (10, 10, 40, 32), 0.9), names=("cat",))).estimates
    assert values["AP"].value == pytest.approx(0.7)
    assert values["AP50"].value == values["AP75"].value == pytest.approx(1)


def test_a_detection_in_a_crowd_is_neither_true_nor_false_positive() -> None:
    truth = manifest([[("cat", CAT), ("cat", (80, 20, 100, 100))]], ("cat",), crowds=[2])
    in_crowd = [(1, "cat", (90, 30, 20, 20), 0.95), (1, "cat", (130, 60, 20, 20), 0.93)]
    found_all = compute(truth, make_detections((1, "cat", CAT, 0.9), *in_crowd, names=("cat",)))
    assert found_all.estimates["AP"].value == pytest.approx(1)
    assert found_all.boxes == 1
    assert [found_all.at_threshold[name].value for name in ("precision", "recall", "f1")] == [1, 1, 1]


def for_torchmetrics(truth: Manifest, detections: list[Detection]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import torch

    predicted, target = [], []
    for image in truth.images:
        own = [a for a in truth.annotations if a.image_id == image.id]
        mine = [d for d in detections if d["image_id"] == image.id]
        target.append(
            {
                "boxes": torch.tensor([a.bbox for a in own]).reshape(-1, 4),
                "labels": torch.tensor([a.category_id for a in own], dtype=torch.int64),
                "iscrowd": torch.tensor([a.iscrowd for a in own], dtype=torch.int64),
                "area": torch.tensor([a.area for a in own]),
            }
        )
        predicted.append(
            {
                "boxes": torch.tensor([one["bbox"] for one in mine]).reshape(-1, 4),
                "labels": torch.tensor([one["category_id"] for one in mine], dtype=torch.int64),
                "scores": torch.tensor([one["score"] for one in mine]),
            }
        )
    return predicted, target


RECALLS = np.linspace(0, 1, 101).tolist()  # torchmetrics' own are those in fp32, and 0.29 is not among them
THEIRS = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "AR_1": "mar_1", "AR_10": "mar_10", "AR_100": "mar_100"}


def test_metrics_are_those_of_torchmetrics() -> None:
    from torchmetrics.detection import MeanAveragePrecision

    truth = random_boxes(5, 30)
    detections = random_detections(6, truth)
    metric = MeanAveragePrecision(box_format="xywh", class_metrics=True, rec_thresholds=RECALLS)
    metric.update(*for_torchmetrics(truth, detections))
    theirs, ours = metric.compute(), compute(truth, detections)
    sizes = {f"AP_{size}": f"map_{size}" for size in ("small", "medium", "large")}
    for name, key in (THEIRS | sizes).items():
        assert ours.estimates[name].value == pytest.approx(float(theirs[key]), abs=1e-5), name
    assert [one.ap.value for one in ours.per_class.values()] == pytest.approx(
        theirs["map_per_class"].tolist(), abs=1e-5
    )


def test_metrics_are_those_of_an_implementation_without_pycocotools() -> None:
    """torchmetrics' older one, in torch alone. It has no crowds and other size ranges."""
    from torchmetrics.detection._mean_ap import MeanAveragePrecision

    truth = random_boxes(5, 30, crowds=0)
    detections = random_detections(6, truth)
    metric = MeanAveragePrecision(box_format="xywh", rec_thresholds=RECALLS)
    metric.update(*for_torchmetrics(truth, detections))
    theirs, ours = metric.compute(), compute(truth, detections)
    for name, key in THEIRS.items():
        assert ours.estimates[name].value == pytest.approx(float(theirs[key]), abs=1e-5), name


def test_a_label_without_boxes_and_a_test_set_without_any() -> None:
    truth = manifest([[("cat", CAT)], []])
    found_all = compute(truth, make_detections((1, "cat", CAT, 0.9), (2, "dog", DOG, 0.3)))
    absent = Estimate(None, absent="no box in the test pictures")
    assert found_all.per_class["dog"] == ClassAP(absent, absent, 0)
    assert found_all.estimates["AP"].value == pytest.approx(1), "the mean is over labels that have boxes"
    nothing = compute(manifest([[], []]), [])
    assert nothing.estimates["AP"] == Estimate(None, absent="no box in the test pictures")
    assert nothing.estimates["AP_small"].absent == "no small box in the test pictures"
    assert nothing.at_threshold == {
        "precision": Estimate(None, absent="no detection at the threshold"),
        "recall": Estimate(None, absent="no box in the test pictures"),
        "f1": Estimate(None, absent="neither a box nor a detection"),
    }


# --- intervals ---


def match_resample(truth: Manifest, detections: list[Detection], counts: list[int]) -> DetectionMatches:
    """pycocotools on the resample itself: each picture as often as it was drawn."""
    images: list[Image] = []
    annotations: list[Annotation] = []
    results: list[Detection] = []
    for image, count in zip(truth.images, counts, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append(image.model_copy(update={"id": number}))
            for a in truth.annotations:
                if a.image_id == image.id:
                    annotations.append(a.model_copy(update={"id": len(annotations) + 1, "image_id": number}))
            results += [{**d, "image_id": number} for d in detections if d["image_id"] == image.id]
    return match_detections(
        Manifest(images=tuple(images), annotations=tuple(annotations), categories=truth.categories), results
    )


def test_every_figure_under_weights_is_that_of_the_data_set_which_repeats_the_pictures() -> None:
    truth = random_boxes(7, 12)
    detections = random_detections(8, truth)
    matches = match_detections(truth, detections)
    weights = np.concatenate([np.ones((1, 12)), np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), 6)])
    values = weighted_figures(matches, 0.4, weights)
    for row, weight in enumerate(weights):
        theirs = match_resample(truth, detections, weight.astype(int).tolist())
        for name, value in zip(COCO_STATS, theirs.stats[:9], strict=True):
            ours = values.overall[name][row]
            assert np.isnan(ours) if value < 0 else ours == pytest.approx(value, abs=1e-12), (row, name)
        point = operating_point(theirs.classes, 0.4)
        for name in ("precision", "recall", "f1"):
            assert values.overall[name][row] == pytest.approx(getattr(point, name), abs=1e-12), (row, name)
        for k in range(len(NAMES)):
            of_label = theirs.precision[:, :, k]
            for name, value in (("AP", of_label.mean()), ("AP50", of_label[0].mean())):
                ours = values.by_label[name][k, row]
                assert np.isnan(ours) if value < 0 else ours == pytest.approx(value, abs=1e-12), (row, name, k)


def test_recall_counts_the_highest_scores_of_each_picture() -> None:
    """13 boxes in one picture, 2 in another: of the first ten, eleven of 15 boxes are found."""
    boxes = [("cat", (15.0 * n, 10.0, 12.0, 12.0)) for n in range(13)]
    truth = manifest([boxes, boxes[:2]], ("cat",))
    rows = [(1, "cat", box, 0.9 - 0.01 * n) for n, (_, box) in enumerate(boxes)]
    detections = make_detections(*rows, (2, "cat", boxes[0][1], 0.3), names=("cat",))
    values = weighted_figures(match_detections(truth, detections), 0.0, np.array([[1.0, 1.0], [0.0, 1.0]])).overall
    assert values["AR_1"].tolist() == pytest.approx([2 / 15, 1 / 2])
    assert values["AR_10"].tolist() == pytest.approx([11 / 15, 1 / 2])
    assert values["AR_100"].tolist() == pytest.approx([14 / 15, 1 / 2])


def test_a_half_without_boxes_has_no_ap() -> None:
    truth = manifest([[("cat", CAT)], []])
    matches = match_detections(truth, make_detections((1, "cat", CAT, 0.9)))
    values = weighted_figures(matches, 0.0, np.array([[2.0, 0.0], [0.0, 2.0]])).overall
    assert values["AP"][0] == pytest.approx(1)
    assert np.isnan(values["AP"][1])


def figures_of(metrics: DetectorMetrics) -> dict[str, Estimate]:
    of_labels = {
        f"{label} {name}": estimate
        for label, one in metrics.per_class.items()
        for name, estimate in (("AP", one.ap), ("AP50", one.ap50))
    }
    return {**metrics.estimates, **metrics.at_threshold, **of_labels}


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 10))
def test_every_figure_has_an_interval_around_it_or_a_reason(seed: int, pictures: int) -> None:
    truth = random_boxes(seed, pictures)
    for name, one in figures_of(compute(truth, random_detections(seed + 1, truth))).items():
        if one.value is None:
            assert one.absent, name
        elif one.low is None or one.high is None:
            assert one.note == "no interval: one unit shows no spread", name
        else:
            assert 0 <= one.low <= one.value <= one.high <= 1 + 1e-9, name
            assert one.low < one.high, name
            assert one.note.startswith("only "), name


def repeated(truth: Manifest, detections: list[Detection], times: int) -> tuple[Manifest, list[Detection]]:
    """Each picture `times` times, all of them one group."""
    images: list[Image] = []
    annotations: list[Annotation] = []
    results: list[Detection] = []
    for image in truth.images:
        for _ in range(times):
            number = len(images) + 1
            update = {"id": number, "sha256": f"{number:064}", "group": str(image.id)}
            images.append(image.model_copy(update=update))
            for a in truth.annotations:
                if a.image_id == image.id:
                    annotations.append(a.model_copy(update={"id": len(annotations) + 1, "image_id": number}))
            results += [{**d, "image_id": number} for d in detections if d["image_id"] == image.id]
    whole = Manifest(images=tuple(images), annotations=tuple(annotations), categories=truth.categories)
    return whole, results


def test_pictures_of_a_unit_are_drawn_together() -> None:
    """Every picture of 24 three times, as a group: the test set shows no more than the 24 do."""
    truth = random_boxes(3, 24, crowds=0)
    detections = random_detections(4, truth)
    once, thrice = compute(truth, detections), compute(*repeated(truth, detections, 3))
    assert (thrice.pictures, thrice.units) == (72, 24)
    for name, one in figures_of(once).items():
        other = figures_of(thrice)[name]
        if one.value is not None and name not in ("precision", "recall", "f1"):  # whose thresholds are others
            assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.01), name


def test_a_model_without_a_mistake_has_an_interval() -> None:
    """20 of 20 boxes found: three times 20 boxes more may show a mistake or two (Wilson's lower end is 0.82)."""
    truth = manifest([[("cat", CAT)]] * 20, ("cat",))
    found = compute(truth, make_detections(*((n, "cat", CAT, 0.9) for n in range(1, 21)), names=("cat",)))
    for name in ("AP50", "AP", "AR_100"):
        one = found.estimates[name]
        assert [one.value, one.high] == pytest.approx([1, 1])
        assert not one.note
        assert 0.8 < (one.low or 0) < 0.85
    assert 0.8 < (found.at_threshold["precision"].low or 0) < 0.85


def test_few_units_and_one_are_noted() -> None:
    truth = manifest([[("cat", CAT)], [("cat", CAT)], [("dog", DOG)], []])
    found = compute(truth, make_detections((1, "cat", CAT, 0.9), (2, "cat", DOG, 0.8), (3, "dog", DOG, 0.7)))
    assert found.estimates["AP50"].note == "only 3 units"
    assert found.per_class["cat"].ap50.note == "only 2 units"
    dog = found.per_class["dog"].ap50
    assert dog == Estimate(dog.value, note="no interval: one unit shows no spread")
    assert dog.value == pytest.approx(1)


def test_a_model_against_itself_has_no_difference() -> None:
    truth = random_boxes(1, 8)
    matches = match_detections(truth, random_detections(2, truth))
    model = (matches, choose_threshold(matches.classes))
    evaluation = evaluate_detectors(model, model, NAMES, crowds=0, resamples=100, seed=0)
    assert evaluation.difference == SAME_MODEL
    assert ap_difference(matches, matches) == SAME_MODEL


def test_two_models_without_a_mistake_may_still_differ() -> None:
    truth = manifest([[("cat", CAT)]] * 30, ("cat",))
    one, other = (
        match_detections(truth, make_detections(*((n, "cat", CAT, score) for n in range(1, 31)), names=("cat",)))
        for score in (0.9, 0.8)
    )
    found = ap_difference(one, other)
    assert found.value == 0
    assert found.low == pytest.approx(-(found.high or 0))
    assert 0.03 < (found.high or 0) < 0.1


def test_hard_pictures_are_hard_for_both_models() -> None:
    """Half of the pictures are hopeless for both; the difference rests on the few where only one model is right."""
    truth = manifest([[("cat", CAT)]] * 40, ("cat",))
    right = [(n, "cat", CAT, 0.9) for n in range(1, 21)]
    one, other = (match_detections(truth, make_detections(*rows, names=("cat",))) for rows in (right[:-2], right))
    found, own = ap_difference(one, other, "AP50"), ap_interval(other, "AP50")
    assert found.value == pytest.approx(0.05, abs=0.01)
    assert found.high is not None
    assert found.low is not None
    assert own.high is not None
    assert own.low is not None
    assert found.high - found.low < 0.55 * (own.high - own.low)


def test_one_function_for_the_report_and_for_other_models() -> None:
    truth = random_boxes(1, 30)
    weak, strong = (match_detections(truth, random_detections(seed, truth, noise)) for seed, noise in ((3, 9), (4, 4)))
    models = [(matches, choose_threshold(matches.classes)) for matches in (weak, strong)]
    evaluation = evaluate_detectors(models[0], models[1], NAMES, crowds=0, resamples=200, seed=5)
    for name in ("AP", "AP50", "AP75"):
        found = ap_interval(strong, name, resamples=200, seed=5)
        assert astuple(found) == pytest.approx(astuple(evaluation.fine_tuned.estimates[name]))
    difference = ap_difference(weak, strong, resamples=200, seed=5)
    assert astuple(difference) == pytest.approx(astuple(evaluation.difference))
    assert difference.value == pytest.approx(
        (evaluation.fine_tuned.estimates["AP"].value or 0) - (evaluation.head_only.estimates["AP"].value or 0)
    )
