"""A detector's report: the frame of the classifier's, nothing from outside, nothing unescaped, the right sentences."""

from pathlib import Path

import pytest

from headstart.base.detections import SplitDetections
from headstart.evaluation.detector.report import detector_summary_sentences, outcome_rows
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.detection import evaluate_detectors
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


def summarize(*rows: tuple[int, str, tuple[float, float, float, float], float]) -> list[str]:
    truth = manifest([[("cat", CAT)], [("cat", CAT)]], ("cat",))
    matches, none = match_detections(truth, make_detections(*rows, names=("cat",))), match_detections(truth, [])
    models = [(none, choose_threshold(none.classes)), (matches, choose_threshold(matches.classes))]
    evaluation = evaluate_detectors(models[0], models[1], ("cat",), crowds=0, resamples=100, seed=0)
    return [sentence.replace("\xa0", " ") for sentence in detector_summary_sentences(evaluation)]


def test_the_summary_is_in_sentences() -> None:
    operating_point, metrics, gain = summarize((1, "cat", CAT, 0.9), (2, "cat", (120, 90, 40, 40), 0.2))
    assert operating_point == (
        "At the threshold 0.55 the fine-tuned model finds 50.0 % of 2 boxes in 2 test pictures (recall). "
        "100.0 % of its detections are correct (precision)."
    )
    assert metrics.startswith("Its AP50 is 0.505, on pictures of the same kind probably between 0.000 and 1.000 (95 %")
    assert "fine-tuning changed AP by +50.5 points (+0.0 to +100.0)" in gain


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
    assert summarize()[0].endswith("It detects nothing.")
    assert "finds 0.0 % of 2 boxes in 2 test pictures (recall). " in summarize()[0]
