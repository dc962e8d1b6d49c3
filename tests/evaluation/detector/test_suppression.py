"""NMS across labels: only where annotated boxes of different labels exclude each other, and never at a cost on val."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

import tiny
from conftest import Project
from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.evaluation.detector.evaluate import detect_with_both
from headstart.evaluation.detector.predictions import StageDetector
from headstart.evaluation.detector.suppression import (
    Suppression,
    candidate_settings,
    choose_suppression,
    overlap_of_labels,
)
from headstart.params.root import Params
from synthetic_boxes import make_detections, manifest

CAT, BESIDE, DOG = (10.0, 10.0, 40.0, 40.0), (15.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)
APART = manifest([[("cat", CAT), ("dog", DOG)], [("dog", CAT)]])
TOGETHER = manifest([[("cat", CAT), ("dog", BESIDE)], [("dog", DOG)]])
# One card, two labels; the right one scores higher, and the other one higher than the dog.
WITHIN = make_detections((1, "cat", CAT, 0.9), (1, "raccoon", CAT, 0.8), (1, "dog", DOG, 0.7), (2, "dog", CAT, 0.6))
ACROSS = make_detections((1, "cat", CAT, 0.9), (1, "dog", DOG, 0.7), (2, "dog", CAT, 0.6))
LOST = make_detections((1, "cat", CAT, 0.9))


def test_what_is_tried() -> None:
    assert overlap_of_labels("auto", (APART, APART), 0.5) == 0
    assert candidate_settings("auto", 0.0) == (False, True)
    assert candidate_settings("auto", 0.01) == (False, True)
    assert overlap_of_labels("auto", (TOGETHER, APART), 0.5) == pytest.approx(2 / 6)
    assert candidate_settings("auto", 2 / 6) == (False,), "objects of two labels lie at one place"
    for param in (True, False):
        assert overlap_of_labels(param, (TOGETHER, TOGETHER), 0.5) is None
        assert candidate_settings(param, None) == (param,)
    one_label = manifest([[("cat", CAT), ("cat", CAT)]], ("cat",))
    assert overlap_of_labels("auto", (one_label, one_label), 0.5) is None
    assert candidate_settings("auto", None) == (False,), "a single label has no other"


def test_it_is_chosen_where_val_does_not_lose() -> None:
    """Of 4 boxes within labels 3 are correct, 3 of 3 objects are found: F1 6/7. Across labels it is 1."""
    chosen = choose_suppression("auto", 0.0, APART, {False: WITHIN, True: ACROSS})
    assert chosen.across_labels
    assert chosen.f1_within == pytest.approx(6 / 7)
    assert chosen.f1_across == 1
    kept = choose_suppression("auto", 0.0, APART, {False: WITHIN, True: LOST})
    assert not kept.across_labels
    assert kept.f1_across == pytest.approx(0.5)
    assert choose_suppression("auto", 0.0, APART, {False: ACROSS, True: ACROSS}).across_labels, "nothing is lost"
    nothing = choose_suppression("auto", 0.0, manifest([[]]), {False: [], True: []})
    assert not nothing.across_labels, "no box to choose by"
    assert choose_suppression(True, None, APART, {True: LOST}) == Suppression(across_labels=True, param=True)


def test_it_says_why() -> None:
    chosen = choose_suppression("auto", 0.0, APART, {False: WITHIN, True: ACROSS})
    assert chosen.to_json() == {
        "used": True,
        "param": "auto",
        "overlapping_share": 0.0,
        "val_f1_within_labels": 0.857143,
        "val_f1_across_labels": 1.0,
    }
    assert chosen.sentence().replace("\xa0", " ") == (
        "Of two boxes that overlap, the lower-scoring one is dropped whatever their labels: 0.0 % of the annotated "
        "boxes overlap one of another label, and the F1 on the validation set is 100.0 % across labels, 85.7 % within."
    )
    overlapping = choose_suppression("auto", 0.25, TOGETHER, {False: WITHIN})
    assert overlapping.sentence().replace("\xa0", " ") == (
        "Of two boxes that overlap, the lower-scoring one is dropped only if they have one label: 25.0 % of the "
        "annotated boxes overlap one of another label."
    )
    assert Suppression(across_labels=False, param=False).sentence().endswith("model.class_agnostic_nms is false.")
    assert Suppression(across_labels=False).sentence() == ""


class FakeDetector:
    """Detections by manifest (its first picture's sha256) and setting."""

    nms_iou = 0.5

    def __init__(self, digest: str) -> None:
        self.digest, self.calls = digest, list[tuple[bool, ...]]()

    def detect(self, _: Manifest, settings: Sequence[bool]) -> list[list[Detection]]:
        self.calls.append(tuple(settings))
        return [ACROSS if across else WITHIN for across in settings]


def detect(param: Any, *digests: str, splits: Manifest = APART) -> tuple[Any, list[list[tuple[bool, ...]]]]:
    models = [FakeDetector(digest) for digest in digests]
    params: Params = tiny.make_detect_params(model={"class_agnostic_nms": param})
    head_only, fine_tuned = (cast(StageDetector, model) for model in models)
    result = detect_with_both(head_only, fine_tuned, {"train": splits, "val": splits, "test": splits}, params)
    return result, [model.calls for model in models]


def test_both_models_get_what_was_chosen_for_the_fine_tuned_one() -> None:
    (head, tuned, suppression), calls = detect("auto", "one", "other")
    assert suppression.across_labels
    assert head.val == head.test == tuned.val == tuned.test == ACROSS
    assert calls == [[(True,), (True,)], [(False, True), (True,)]], "the network runs once on each split"
    (_, tuned, suppression), calls = detect("auto", "one", "other", splits=TOGETHER)
    assert (suppression.across_labels, tuned.test) == (False, WITHIN)
    (_, tuned, _), calls = detect(True, "one", "other", splits=TOGETHER)
    assert (tuned.val, calls[1]) == (ACROSS, [(True,), (True,)])


def test_a_model_that_fine_tuning_left_as_it_was_runs_once() -> None:
    (head, tuned, _), calls = detect("auto", "same", "same")
    assert head is tuned
    assert calls[0] == []


def test_the_stage_writes_what_it_used(detect_project: Project) -> None:
    metrics = tiny.read_json(detect_project.root / "stages/evaluate/metrics.json")["class_agnostic_nms"]
    assert metrics["param"] == "auto"
    assert metrics["overlapping_share"] == 0, "red and blue squares lie apart"
    assert metrics["used"] == (metrics["val_f1_across_labels"] >= metrics["val_f1_within_labels"])
    labels = tiny.read_json(detect_project.root / "stages/export/labels.json")
    assert labels["class_agnostic_nms"] is metrics["used"]
