"""A detector's metrics against pycocotools, torchmetrics and cases worked by hand; their intervals."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.detections import Detection
from headstart.base.manifest import Annotation, Image, Manifest
from headstart.metrics.bootstrap import Estimate, resample_weights
from headstart.metrics.coco_matching import DetectionMatches, match_detections
from headstart.metrics.detection import INTERVAL_STATS, ClassAP, DetectorMetrics, evaluate_detectors, weighted_ap
from headstart.metrics.threshold import OperatingPoint, choose_threshold
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
    assert (found_all.boxes, found_all.at_threshold) == (1, OperatingPoint(1.0, 1.0, 1.0))


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
    assert [one.ap for one in ours.per_class.values()] == pytest.approx(theirs["map_per_class"].tolist(), abs=1e-5)


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
    assert found_all.per_class["dog"] == ClassAP(None, None, 0)
    assert found_all.estimates["AP"].value == pytest.approx(1), "the mean is over labels that have boxes"
    nothing = compute(manifest([[], []]), [])
    assert nothing.estimates["AP"] == Estimate(None, absent="no box in the test pictures")
    assert nothing.estimates["AP_small"].absent == "no small box in the test pictures"
    assert nothing.at_threshold == OperatingPoint(None, None, None)


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


def test_weighted_ap_is_pycocotools_on_the_resample_itself() -> None:
    truth = random_boxes(7, 12)
    detections = random_detections(8, truth)
    matches = match_detections(truth, detections)
    weights = np.concatenate([np.ones((1, 12)), *resample_weights(12, 6, seed=3)])
    values = weighted_ap(matches, weights)
    assert values["AP"][0] == pytest.approx(matches.stats[0], abs=1e-12), "the whole is itself"
    for row, weight in enumerate(weights):
        theirs = match_resample(truth, detections, weight.astype(int).tolist()).stats
        for name, value in zip(("AP", "AP50", "AP75"), theirs[:3], strict=True):
            assert values[name][row] == pytest.approx(value, abs=1e-12), (row, name)


def test_a_resample_without_boxes_has_no_ap() -> None:
    truth = manifest([[("cat", CAT)], []])
    values = weighted_ap(
        match_detections(truth, make_detections((1, "cat", CAT, 0.9))), np.array([[2.0, 0.0], [0.0, 2.0]])
    )
    assert values["AP"][0] == pytest.approx(1)
    assert np.isnan(values["AP"][1])


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(1, 10))
def test_intervals_contain_their_metric(seed: int, pictures: int) -> None:
    truth = random_boxes(seed, pictures)
    values = compute(truth, random_detections(seed + 1, truth)).estimates
    for name in INTERVAL_STATS:
        one = values[name]
        if one.value is not None:
            assert one.low is not None
            assert one.high is not None
            assert 0 <= one.low <= one.value <= one.high <= 1 + 1e-9


def test_a_model_against_itself_makes_no_difference() -> None:
    truth = random_boxes(1, 8)
    matches = match_detections(truth, random_detections(2, truth))
    model = (matches, choose_threshold(matches.classes))
    evaluation = evaluate_detectors(model, model, NAMES, crowds=0, resamples=100, seed=0)
    assert evaluation.difference == Estimate(0.0, 0.0, 0.0)
