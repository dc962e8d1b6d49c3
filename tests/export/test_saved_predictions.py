"""answers.json: predictions on the test set, and the digest of that set."""

from pathlib import Path

import numpy as np
import pytest

import synthetic_boxes
import tiny
from conftest import Project
from headstart.base.manifest import Image, Manifest, make_categories
from headstart.export.model_prediction import DetectedBox, ModelPrediction
from headstart.export.saved_predictions import (
    collect_predictions,
    manifest_digest,
    read_predictions,
    write_predictions,
)

LABELS = ["blue", "green", "red"]


def make_test(count: int) -> Manifest:
    images = tuple(
        Image(id=n, file_name=f"{n}.png", width=100, height=50, sha256=f"{n:064x}", source="", label=LABELS[n % 3])
        for n in range(count)
    )
    return Manifest(images=images, categories=make_categories(LABELS))


def test_the_digest_is_of_the_pictures_and_their_boxes_and_labels() -> None:
    test = synthetic_boxes.random_boxes(3, 6)
    renamed = Manifest(
        images=tuple(i.model_copy(update={"id": i.id + 90, "file_name": f"{i.id}"}) for i in reversed(test.images)),
        annotations=tuple(a.model_copy(update={"image_id": a.image_id + 90}) for a in test.annotations),
        categories=test.categories,
    )
    assert manifest_digest(renamed) == manifest_digest(test)
    first, *others = test.annotations
    wider = first.model_copy(update={"bbox": (*first.bbox[:2], first.bbox[2] + 1, first.bbox[3])})
    crowd = first.model_copy(update={"iscrowd": 1 - first.iscrowd})
    for changed in (
        test.subset(test.images[1:]),
        test.model_copy(update={"annotations": (wider, *others)}),
        test.model_copy(update={"annotations": (crowd, *others)}),
    ):
        assert manifest_digest(changed) != manifest_digest(test)
    labelled = make_test(60)
    other = labelled.images[0].model_copy(update={"label": "green"})
    relabelled = labelled.model_copy(update={"images": (other, *labelled.images[1:])})
    assert manifest_digest(relabelled) != manifest_digest(labelled)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    test = make_test(4)
    probabilities = ModelPrediction(dict(zip(LABELS, (0.2, 0.3, 0.5), strict=True)))
    box = DetectedBox("red", 0.5, (1, 2, 3, 5))
    for predictions in (
        collect_predictions(test, LABELS, [probabilities] * 4),
        collect_predictions(test, LABELS, [ModelPrediction({}, (box,) * n) for n in range(4)]),
    ):
        write_predictions(predictions, tmp_path)
        assert read_predictions(tmp_path / "answers.json") == predictions
    assert predictions.boxes[test.images[1].sha256] == ((2, 0.5, 1, 2, 2, 3),)
    assert tiny.read_json(tmp_path / "answers.json")["exam"] == manifest_digest(test), "the key in earlier files"


def test_a_classifiers_predictions_are_those_of_the_evaluation(project: Project) -> None:
    test = tiny.manifest(project.root, "split", "test")
    predictions = read_predictions(project.root / "stages/export/answers.json")
    assert predictions.test_set == manifest_digest(test)
    assert (predictions.labels, predictions.boxes) == (("blue", "red"), {})
    sha256 = {image.file_name: image.sha256 for image in test.images}
    rows = tiny.read_json(project.root / "stages/evaluate/predictions.json")
    assert set(predictions.probabilities) == {sha256[row["file_name"]] for row in rows}
    for row in rows:
        expected = list(row["fine_tuned"]["probabilities"].values())
        assert predictions.probabilities[sha256[row["file_name"]]] == pytest.approx(expected, abs=1e-5)


def test_a_detectors_predictions_are_those_of_the_evaluation(detect_project: Project) -> None:
    root = detect_project.root
    test, predictions = tiny.manifest(root, "split", "test"), read_predictions(root / "stages/export/answers.json")
    assert predictions.test_set == manifest_digest(test)
    assert (list(predictions.labels), predictions.probabilities) == (["blue", "red"], {})
    expected: dict[str, list[list[float]]] = {image.sha256: [] for image in test.images}
    for one in tiny.read_json(root / "stages/evaluate/predictions.json"):
        sha256 = next(image.sha256 for image in test.images if image.id == one["image_id"])
        expected[sha256].append([one["category_id"] - 1, one["score"], *one["bbox"]])
    for sha256, boxes in expected.items():
        np.testing.assert_allclose(predictions.boxes[sha256], boxes, atol=0.01)
