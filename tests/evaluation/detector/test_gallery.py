"""A detector's gallery: which boxes are shown, and in which order."""

import csv
import json
from pathlib import Path

import PIL.Image
import pytest

from headstart.base.detections import SplitDetections
from headstart.base.errors import UserError
from headstart.evaluation.detector.gallery import find_cases
from headstart.evaluation.detector.outcomes import find_outcomes
from headstart.metrics.coco_matching import match_detections
from html_page import HtmlPage
from synthetic_boxes import make_detections, manifest, write_evaluation, write_pictures, write_random_evaluation

CAT, DOG = (10.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)


def read_cases(out: Path) -> list[dict[str, str]]:
    with (out / "gallery/cases.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_kind_is_shown_with_a_picture_once_in_it(tmp_path: Path) -> None:
    out = write_random_evaluation(tmp_path)
    rows = read_cases(out)
    assert [row["kind"] for row in rows] == ["miss"] * 2 + ["false alarm"] * 2 + ["hit"] * 2
    threshold = json.loads((out / "metrics.json").read_text())["test"]["threshold"]
    for kind in ("miss", "false alarm", "hit"):
        of_kind = [row for row in rows if row["kind"] == kind]
        assert len({row["file_name"] for row in of_kind}) == len(of_kind)
        scores = [float(row["confidence"]) for row in of_kind if row["confidence"]]
        assert scores == sorted(scores, reverse=True)
        assert all(score >= threshold for score in scores)
        assert len(scores) == (0 if kind == "miss" else 2)
    for row in rows:
        with PIL.Image.open(out / "gallery" / row["thumbnail"]) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) == 400


def test_the_largest_misses_come_first(tmp_path: Path) -> None:
    small, large = (10.0, 10.0, 12.0, 12.0), (20.0, 20.0, 120.0, 120.0)
    truth = manifest([[("cat", small)], [("dog", large)], [("cat", CAT)]])
    nothing = SplitDetections([], [])
    out = write_evaluation(tmp_path, truth, truth, nothing, nothing, gallery=3 * 2)
    assert [(row["label"], row["file_name"]) for row in read_cases(out)] == [
        ("dog", "images/2.png"),
        ("cat", "images/3.png"),
    ]


def test_a_picture_is_ranked_by_its_most_confident_box(tmp_path: Path) -> None:
    truth = manifest([[("cat", CAT), ("dog", DOG)], [("cat", CAT)], [("cat", CAT)]])
    detections = make_detections((1, "cat", CAT, 0.9), (1, "dog", DOG, 0.5), (2, "cat", CAT, 0.8), (3, "cat", CAT, 0.7))
    model = SplitDetections(detections, detections)
    out = write_evaluation(tmp_path, truth, truth, model, model, gallery=8)
    assert [(row["file_name"], row["confidence"]) for row in read_cases(out)] == [
        ("images/1.png", "0.9"),
        ("images/2.png", "0.8"),
    ]


def test_a_second_box_is_shown_among_the_false_positives_by_its_name(tmp_path: Path) -> None:
    """One card with two labels, a dog called a cat, and a box where nothing is."""
    truth = manifest([[("cat", CAT)], [("dog", DOG)], [("cat", CAT)]])
    detections = make_detections(
        (1, "cat", CAT, 0.9), (1, "dog", CAT, 0.8), (2, "cat", DOG, 0.7), (3, "cat", CAT, 0.95), (3, "cat", DOG, 0.6)
    )
    model = SplitDetections(detections, detections)
    # On val every box is right: the threshold lies below all scores.
    val = manifest([[("cat", CAT)], [("cat", DOG)], [("cat", CAT), ("cat", DOG)]])
    out = write_evaluation(tmp_path, val, truth, model, model, gallery=9)
    wrong = [row for row in read_cases(out) if row["kind"] != "hit"]
    assert [(row["kind"], row["label"], row["predicted"]) for row in wrong] == [
        ("second box", "cat", "dog"),
        ("false alarm", "dog", "cat"),
        ("false alarm", "", "cat"),
    ]
    assert wrong[0]["thumbnail"].endswith("second-box-cat-as-dog.jpg")
    page = HtmlPage((out / "report.html").read_text(encoding="utf-8"))
    assert "second box on cat" in page.text
    assert "Second boxes on an object that has a detection already (1) are not in it" in page.text
    counts = json.loads((out / "metrics.json").read_text())["test"]["outcomes"]
    assert counts == {"correct": 2, "wrong_label": 1, "second_box": 1, "nothing_there": 1, "missed": 0}


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    truth = manifest([[("cat", CAT)]])
    write_pictures(tmp_path, truth)
    missing = truth.images[0].model_copy(update={"file_name": "images/gone.png"})
    truth = truth.model_copy(update={"images": (missing,)})
    outcomes = find_outcomes(truth, [], match_detections(truth, []), 0.5)
    with pytest.raises(UserError, match=r"gone\.png: no such file; .*dvc repro"):
        find_cases(tmp_path, truth, [], outcomes, 0.5, 3)
