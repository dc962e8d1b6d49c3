"""A detector's report: the frame of the classifier's, nothing from outside, nothing unescaped, the right sentences."""

import re
from pathlib import Path

import pytest

from headstart.base.detections import SplitDetections
from headstart.evaluation.detector.report import (
    detector_class_table,
    detector_metric_rows,
    detector_summary_sentences,
    outcome_rows,
)
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.detection import DetectorEvaluation, evaluate_detectors
from headstart.metrics.threshold import choose_threshold
from html_page import HtmlPage
from synthetic_boxes import make_detections, manifest, write_evaluation, write_random_evaluation

CAT = (10.0, 10.0, 40.0, 40.0)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return (write_random_evaluation(tmp_path_factory.mktemp("evaluation")) / "report.html").read_text(encoding="utf-8")


def test_the_page_is_complete_and_needs_no_other_file(html: str) -> None:
    page = HtmlPage(html)
    assert page.open == []
    for attributes in page.all("img"):
        assert (attributes["src"] or "").startswith("data:image/")
        assert attributes["alt"]
    assert not page.all("script")
    assert not page.all("link")


def test_every_section_is_there(html: str) -> None:
    page = HtmlPage(html)
    ids = [attributes["id"] for attributes in page.all("h2")]
    assert ids == [
        "summary", "metrics", "labels", "threshold", "confusions", "training", "cases", "data", "model", "reproduce"
    ]  # fmt: skip
    for text in (
        "made up",
        "some_net",
        "Boxes by label and split",
        "AP75",
        "Missed (false negatives), the largest first",
        "background",
    ):
        assert text in page.text


def test_a_label_is_no_html(tmp_path: Path) -> None:
    names = ("<b>bold</b>", "cat")
    truth = manifest([[("cat", CAT)], [("<b>bold</b>", CAT)]], names)
    detections = make_detections((1, "cat", CAT, 0.9), (2, "<b>bold</b>", CAT, 0.8), names=names)
    model = SplitDetections(detections, detections)
    html = (write_evaluation(tmp_path, truth, truth, model, model) / "report.html").read_text(encoding="utf-8")
    assert "<b>bold</b>" not in html.replace("<b>&lt;b&gt;bold&lt;/b&gt;</b>", "")
    assert "&lt;b&gt;bold" in html


def test_a_test_set_without_boxes_and_a_model_without_detections_have_a_page(tmp_path: Path) -> None:
    nothing = SplitDetections([], [])
    for name, truth in (("empty", manifest([[], []])), ("blind", manifest([[("cat", CAT)], []]))):
        folder = tmp_path / name
        folder.mkdir()
        out = write_evaluation(folder, truth, truth, nothing, nothing)
        page = HtmlPage((out / "report.html").read_text(encoding="utf-8"))
        assert page.open == []
        assert ("The test set gives no metric: no box in the test pictures." in page.text) == (name == "empty")
        assert "0.50 is the default, not a choice" in page.text


def evaluate_cats(*rows: tuple[int, str, tuple[float, float, float, float], float], times: int) -> DetectorEvaluation:
    """Twice `times` pictures with a cat each; `rows` are the second model's detections in two of them, 1 and 2."""
    truth = manifest([[("cat", CAT)]] * (2 * times), ("cat",))
    everywhere = [(2 * n + picture, *others) for n in range(times) for picture, *others in rows]
    detections = make_detections(*everywhere, names=("cat",))  # type: ignore[arg-type]
    matches, none = match_detections(truth, detections), match_detections(truth, [])
    models = [(none, choose_threshold(none.classes)), (matches, choose_threshold(matches.classes))]
    return evaluate_detectors(models[0], models[1], ("cat",), crowds=0, resamples=100, seed=0)


def summarize(evaluation: DetectorEvaluation, kept_head: str = "") -> list[str]:
    return [sentence.replace("\xa0", " ") for sentence in detector_summary_sentences(evaluation, kept_head)]


HALF = ((1, "cat", CAT, 0.9), (2, "cat", (120.0, 90.0, 40.0, 40.0), 0.2))


def test_the_summary_is_in_sentences() -> None:
    evaluation = evaluate_cats(*HALF, times=15)
    operating_point, metrics, gain = summarize(evaluation)
    assert re.fullmatch(
        r"At the threshold 0.55 the fine-tuned model finds 50.0 % \(3\d.\d % to 6\d.\d %\) of 30 boxes in 30 test "
        r"pictures \(recall\). 100.0 % \([78]\d.\d % to 100.0 %; only 15 units\) of its detections are correct "
        r"\(precision\).",
        operating_point,
    )
    assert re.fullmatch(
        r"Its AP50 is 0.505. On other pictures of the same kind it is probably between 0.3\d\d and 0.6\d\d \(95 % "
        r"interval\). That covers the choice of the test pictures \(30 pictures\), but neither another split nor "
        r"another seed of training. AP, which demands close fits as well, is 0.505 \(0.3\d\d to 0.6\d\d\).",
        metrics,
    )
    assert re.search(
        r"fine-tuning changed AP by \+50.5 points \(\+[23]\d.\d to \+[67]\d.\d\): fine-tuning helped.", gain
    )


def test_a_kept_head_has_no_difference() -> None:
    sentences = summarize(evaluate_cats(*HALF, times=2), "No epoch was better.")
    assert sentences[0] == "No epoch was better."
    assert len(sentences) == 3
    assert not any("changed AP" in sentence for sentence in sentences)


def test_few_units_are_named() -> None:
    _, metrics, _ = summarize(evaluate_cats(*HALF, times=2))
    assert "With fewer than 20 units the interval may not hold." in metrics


def test_precision_and_recall_have_intervals_beside_their_threshold() -> None:
    rows = {row.name: row for row in detector_metric_rows(evaluate_cats(*HALF, times=15))}
    assert (rows["Recall"].head_only, rows["Precision"].head_only) == ("0.0\xa0%", "–")
    assert rows["Precision"].head_only_interval == "no detection at the threshold; at threshold 0.50"
    for name in ("Recall", "F1", "AP, medium boxes", "AR, 100 detections"):
        assert re.match(r"[\d.]+\xa0?%? to [\d.]+", rows[name].fine_tuned_interval), name
    assert rows["Recall"].fine_tuned_interval.endswith("; at threshold 0.55")


def test_labels_have_intervals() -> None:
    ((label, ap50, ap, boxes),) = detector_class_table(evaluate_cats(*HALF, times=15).fine_tuned).rows
    assert (label, boxes) == ("cat", 30)
    for cell in (ap50, ap):
        assert re.fullmatch(r"0.505 \(0.3\d\d to 0.6\d\d\)", str(cell))


def test_one_test_picture_has_a_page_and_no_interval(tmp_path: Path) -> None:
    truth = manifest([[("cat", CAT)]], ("cat",))
    model = SplitDetections(*(make_detections((1, "cat", CAT, 0.9), names=("cat",)) for _ in range(2)))
    out = write_evaluation(tmp_path, truth, truth, model, model)
    page = HtmlPage((out / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert "test AP50, without an interval" in page.text
    assert "Its AP50 is 1.000. It has no interval: one unit shows no spread." in page.text


def test_outcomes_of_both_models_are_rows() -> None:
    one = {"correct": 1200, "wrong_label": 2, "second_box": 3, "nothing_there": 4, "missed": 5}
    other = dict.fromkeys(one, 7)
    rows = outcome_rows({"head_only": one, "test": other})
    assert [(row.name, row.head_only, row.fine_tuned) for row in rows] == [
        ("Correct", "1,200", "7"),
        ("Wrong label", "2", "7"),
        ("Second box", "3", "7"),
        ("Nothing there", "4", "7"),
        ("Missed", "5", "7"),
    ]


def test_a_model_without_detections() -> None:
    (first, *_) = summarize(evaluate_cats(times=15))
    assert first.endswith("It detects nothing.")
    assert re.search(r"finds 0.0 % \(0.0 % to 1\d.\d %\) of 30 boxes in 30 test pictures \(recall\). ", first)
