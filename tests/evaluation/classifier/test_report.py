"""A classifier's report: one file, nothing from outside, nothing unescaped, and the right sentences."""

import base64
import io
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import PIL.Image
import pytest

from headstart.base.reproduce import REPRODUCE_COMMANDS
from headstart.evaluation.classifier.report import METRIC_SPECS, classifier_class_table, summary_sentences
from headstart.evaluation.classifier.results import classifier_results
from headstart.evaluation.report_tables import metric_rows
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import ClassifierEvaluation, evaluate_classifiers
from headstart.params.root import EvaluateParams
from html_page import HtmlPage
from synthetic_logits import NAMES, make_facts, make_test_set, write_evaluation


def make_page(folder: Path, classes: int = 3, pictures: int = 40, names: tuple[str, ...] = ()) -> str:
    out = write_evaluation(folder, classes, pictures, names, gallery=4)
    return (out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of 40 pictures and 3 classes."""
    return make_page(tmp_path_factory.mktemp("evaluation"))


def evaluate_predictions(
    head_only: list[int], fine_tuned: list[int], labels: list[int]
) -> tuple[ClassifierEvaluation, ClassifierPredictions]:
    """The evaluation of two models that predict these classes, each with a confidence of 90 %."""
    models = []
    for predicted in (head_only, fine_tuned):
        probabilities = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1)
        models.append(ClassifierPredictions(np.array(labels), probabilities, probabilities, 1.0))
    return evaluate_classifiers(models[0], models[1], NAMES[2], 500, 0), models[1]


def test_the_page_needs_no_other_file_and_no_script(html: str) -> None:
    page = HtmlPage(html)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "form"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\(|@import", html)
    assert tempfile.gettempdir() not in html


def test_every_inline_image_decodes_and_has_words_for_it(html: str) -> None:
    page = HtmlPage(html)
    images = page.all("img")
    assert len(images) == 6 + 4
    assert len(page.all("source")) == 6
    for attributes in [*images, *page.all("source")]:
        kind, data = (attributes.get("src") or attributes.get("srcset") or "").removeprefix("data:").split(";base64,")
        content = base64.b64decode(data, validate=True)
        if kind == "image/svg+xml":
            ET.fromstring(content)
            assert not re.search(rb'(href|src)="(?!#|data:)', content)
        else:
            assert kind == "image/jpeg"
            PIL.Image.open(io.BytesIO(content)).load()
    assert all(len(attributes["alt"] or "") > 10 for attributes in images)


def test_headings_go_down_in_order_and_tables_have_captions(html: str) -> None:
    page = HtmlPage(html)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert [tag for tag, _ in page.tags].count("h2") == 11
    assert len(page.all("table")) == len(page.all("caption")) == 8
    assert page.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)


def test_a_label_with_html_in_it_stays_text(tmp_path: Path) -> None:
    evil = '<img src="http://example.com/x.png" onerror="alert(1)">'
    html = make_page(tmp_path, names=("whole", evil, "</style><script>alert(2)</script>"))
    page = HtmlPage(html)
    assert "<script" not in html
    assert evil not in html
    assert evil in page.text
    assert len(page.all("img")) == 10


def test_the_page_has_the_facts(html: str) -> None:
    page = HtmlPage(html)
    for text in (
        "made up",
        "some_net",
        "data/made-up.csv",
        "CC0",
        "identical",
        "blocks.0",
        "".join(f"{command}\n" for command in REPRODUCE_COMMANDS),
        "The backbone may have seen these.",
        "nobody, CC0",
    ):
        assert text in page.text


def test_the_summary_is_in_sentences() -> None:
    labels = [0] * 60 + [1] * 40
    evaluation, predictions = evaluate_predictions([0] * 100, [0] * 60 + [1] * 30 + [0] * 10, labels)
    correct, interval, common, gain = (
        sentence.replace("\xa0", " ") for sentence in summary_sentences(evaluation, predictions, NAMES[2])
    )
    assert correct == "The fine-tuned model predicts 90.0 % of 100 test pictures correctly."
    assert re.search(r"accuracy is probably between 8\d\.\d % and 9\d\.\d % \(95 % interval", interval)
    assert common == "Always predicting “whole” would be correct for 60.0 %."
    assert re.search(r"changed accuracy by \+30.0 points \(\+2\d\.\d to \+3\d\.\d\): fine-tuning helped", gain)


@pytest.mark.parametrize(
    ("head_only", "fine_tuned", "pattern"),
    [
        ([0] * 50, [1] * 20 + [0] * 30, "−40.0 points .*did harm"),
        ([0] * 50, [1] * 1 + [0] * 49, "−2.0 points .*cannot show"),
    ],
)
def test_the_summary_does_not_flatter(head_only: list[int], fine_tuned: list[int], pattern: str) -> None:
    evaluation, predictions = evaluate_predictions(head_only, fine_tuned, [0] * 50)
    assert re.search(pattern, summary_sentences(evaluation, predictions, NAMES[2])[3])


def test_no_mistake_among_few_pictures_proves_little() -> None:
    evaluation, predictions = evaluate_predictions([0, 1, 0], [0, 1, 0], [0, 1, 0])
    # 1 - 0.05 ** (1 / 3)
    assert "an error rate of up to 63.2\xa0% cannot be" in summary_sentences(evaluation, predictions, NAMES[2])[1]


def test_an_undefined_metric_has_its_reason() -> None:
    evaluation, _ = evaluate_predictions([0, 0], [0, 1], [0, 0])
    row = metric_rows(METRIC_SPECS, evaluation.head_only.estimates(), evaluation.fine_tuned.estimates())[2]
    assert (row.name, row.fine_tuned, row.fine_tuned_interval) == ("ROC AUC", "–", "no test picture of cracked")


def test_metrics_by_label_worked_by_hand() -> None:
    evaluation, _ = evaluate_predictions([0] * 5, [0, 0, 1, 0, 0], [0, 0, 0, 1, 1])
    rows = classifier_class_table(evaluation.fine_tuned).rows
    assert rows[1] == ("cracked", "0.0\xa0%", "0.0\xa0%", "0.0\xa0%", 2)


def test_facts_may_be_few(tmp_path: Path) -> None:
    test_set, head_only, fine_tuned, _ = make_test_set(tmp_path, 2, 20)
    few = replace(make_facts(test_set.labels), notes=(), duplicates={}, licenses={})
    params = EvaluateParams(bootstrap=100, gallery=0)
    _, results = classifier_results(test_set, head_only, fine_tuned, params=params, seed=0, histories={}, facts=few)
    assert HtmlPage(results.report).open == []
