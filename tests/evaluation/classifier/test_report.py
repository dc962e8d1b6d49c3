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

from headstart.base.arrays import Ints
from headstart.base.reproduce import REPRODUCE_COMMANDS
from headstart.evaluation.classifier.cross_validated_report import Gain
from headstart.evaluation.classifier.metric_tables import (
    METRIC_SPECS,
    calibrated_sentence,
    calibration_error_rows,
    classifier_class_table,
)
from headstart.evaluation.classifier.report import summary_sentences
from headstart.evaluation.classifier.results import classifier_results
from headstart.evaluation.report_tables import metric_rows
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import ClassifierEvaluation, evaluate_classifiers
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import SAME_MODEL
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
    head_only: list[int], fine_tuned: list[int], labels: list[int], units: Ints | None = None
) -> tuple[ClassifierEvaluation, ClassifierPredictions]:
    """The evaluation of two models that predict these classes, each with a confidence of 90 %."""
    models = []
    for predicted in (head_only, fine_tuned):
        probabilities = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1)
        of = np.arange(len(labels)) if units is None else units
        models.append(ClassifierPredictions(np.array(labels), probabilities, probabilities, 1.0, of))
    return evaluate_classifiers(models[0], models[1], NAMES[2], 0), models[1]


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
    # Wilson's interval of 90 of 100.
    assert interval == (
        "On other pictures of the same kind its accuracy is probably between 82.6 % and 94.5 % (95 % interval). That "
        "covers the choice of the test pictures (100 pictures), but neither another split nor another seed of training."
    )
    assert common == "Always predicting “whole” would be correct for 60.0 %."
    # Bonett and Price: 30 / 102 +- 1.96 sqrt((32 / 102 - (30 / 102)^2) / 102).
    assert re.search(r"changed accuracy by \+30.0 points \(\+20\.2 to \+38\.7\): fine-tuning helped", gain)


@pytest.mark.parametrize(
    ("head_only", "fine_tuned", "pattern"),
    [
        ([0] * 50, [1] * 20 + [0] * 30, "−40.0 points .*did harm"),
        ([0] * 50, [1] * 1 + [0] * 49, "−2.0 points .*contains 0: too few pictures to tell\\.$"),
    ],
)
def test_the_summary_does_not_flatter(head_only: list[int], fine_tuned: list[int], pattern: str) -> None:
    evaluation, predictions = evaluate_predictions(head_only, fine_tuned, [0] * 50)
    assert re.search(pattern, summary_sentences(evaluation, predictions, NAMES[2])[3])


def test_the_summary_adds_what_cross_validation_shows_of_fine_tuning() -> None:
    evaluation, predictions = evaluate_predictions([0] * 50, [1] + [0] * 49, [0] * 50)
    gain = Gain(Estimate(0.019, 0.009, 0.029), 2624)
    sentence = summary_sentences(evaluation, predictions, NAMES[2], gain=gain)[3]
    assert sentence.endswith(
        ": the interval contains 0: too few pictures to tell. Cross-validation, on 2,624 pictures, can: fine-tuning "
        "changed accuracy by +1.9 points (+0.9 to +2.9)."
    )


def test_no_mistake_among_few_pictures_proves_little() -> None:
    evaluation, predictions = evaluate_predictions([0, 1] * 22, [0, 1] * 22, [0, 1] * 22)
    sentence = summary_sentences(evaluation, predictions, NAMES[2])[1].replace("\xa0", " ")
    assert "probably between 92.0 % and 100.0 %" in sentence
    assert "may not hold" not in sentence


def test_few_units_are_said() -> None:
    evaluation, predictions = evaluate_predictions([0] * 40, [0, 1] * 20, [0, 1] * 20, units=np.arange(40) // 4)
    sentence = summary_sentences(evaluation, predictions, NAMES[2])[1].replace("\xa0", " ")
    assert sentence.startswith("On other units of the same kind its accuracy is")
    assert "(40 pictures of 10 units, a unit being a group and its near-duplicates, or a picture alone)" in sentence
    assert sentence.endswith("With fewer than 20 units the interval may not hold.")
    row = metric_rows(METRIC_SPECS, evaluation.head_only.estimates(), evaluation.fine_tuned.estimates())[0]
    assert row.fine_tuned_interval.endswith("100.0\xa0%; only 10 units")


def test_one_test_picture_is_in_the_singular() -> None:
    evaluation, predictions = evaluate_predictions([1], [0], [0])
    sentences = summary_sentences(evaluation, predictions, NAMES[2])
    assert "of 1 test picture correctly" in sentences[0]
    assert "(1 picture)" in sentences[1]


def test_where_the_head_was_kept_there_is_no_difference() -> None:
    evaluation, predictions = evaluate_predictions([0, 1] * 22, [0, 1] * 22, [0, 1] * 22)
    assert evaluation.difference == SAME_MODEL
    sentences = summary_sentences(evaluation, predictions, NAMES[2], "The head was kept.")
    assert sentences[0] == "The head was kept."
    assert "The head-only model predicts" in sentences[1]
    assert not any("Compared with the head-only" in sentence for sentence in sentences)


def test_calibration_error_stands_beside_a_perfect_models() -> None:
    evaluation, _ = evaluate_predictions([0] * 60, [0] * 60, [0] * 54 + [1] * 6)  # right in 90 %, as it says
    after, before = calibration_error_rows(evaluation)
    assert (after.name, before.name) == ("Calibration error (ECE)", "… before calibration")
    assert after.fine_tuned == "0.0\xa0%"
    assert re.fullmatch(
        r"a perfectly calibrated model would show 0\.0\xa0% to [78]\.\d\xa0%", after.fine_tuned_interval
    )


def test_a_calibration_error_inside_a_perfect_models_range_shows_nothing() -> None:
    inside, _ = evaluate_predictions([0] * 60, [0] * 60, [0] * 54 + [1] * 6)  # right in 90 %, as it says
    assert calibrated_sentence(inside) == (
        " All are inside it: no miscalibration is shown, nor any gain by calibrating."
    )
    outside, _ = evaluate_predictions([0] * 60, [0] * 60, [0] * 30 + [1] * 30)
    assert calibrated_sentence(outside) == ""


def test_the_small_print_and_the_range_of_ece_are_explained(html: str) -> None:
    text = " ".join(HtmlPage(html).text.split()).replace("\xa0", " ")
    assert "is each metric’s 95 % interval, for ECE what a perfectly calibrated model would show." in text
    assert (
        "Calibration error (ECE) has no interval: with few pictures it is above 0 even for a perfectly calibrated "
        "model. Beside it stands the range which such a model with the same confidences would show in 95 of 100 test "
        "sets."
    ) in text
    assert "Most frequent mistakes, counts of this test set" in text
    assert re.search(r"Duplicates ?kind ?number ?identical", text)


def test_the_leading_figures_of_calibration_have_intervals(html: str) -> None:
    names = [spec.key for spec in METRIC_SPECS]
    assert names == ["accuracy", "balanced_accuracy", "roc_auc", "log_loss", "brier_score"]
    text = " ".join(HtmlPage(html).text.split()).replace("\xa0", " ")
    assert re.search(r"Log loss ?cross-entropy of the calibrated .{,40} ?\d\.\d{3} ?\d\.\d{3} to \d\.\d{3}", text)
    assert re.search(r"Brier score ?squared error .{,60} ?\d\.\d{3} ?\d\.\d{3} to \d\.\d{3}", text)


def test_an_undefined_metric_has_its_reason() -> None:
    evaluation, _ = evaluate_predictions([0, 0], [0, 1], [0, 0])
    row = metric_rows(METRIC_SPECS, evaluation.head_only.estimates(), evaluation.fine_tuned.estimates())[2]
    assert (row.name, row.fine_tuned, row.fine_tuned_interval) == ("ROC AUC", "–", "no test picture of cracked")


def test_metrics_by_label_worked_by_hand() -> None:
    evaluation, _ = evaluate_predictions([0] * 5, [0, 0, 1, 0, 0], [0, 0, 0, 1, 1])
    rows = classifier_class_table(evaluation.fine_tuned).rows
    assert [str(cell).split(" (")[0] for cell in rows[1][1:4]] == ["0.0\xa0%"] * 3
    assert rows[1][0] == "cracked"
    assert rows[1][4] == 2
    # 3 of 5 pictures that have the label or are predicted as it are right: F1 is 2 * 2 / (2 * 2 + 1 + 2).
    assert str(rows[0][3]).startswith("57.1\xa0% (")


def test_every_figure_of_a_label_has_its_interval() -> None:
    evaluation, _ = evaluate_predictions([0] * 50, [0] * 25 + [1] * 25, [0] * 25 + [1] * 25)
    for row in classifier_class_table(evaluation.fine_tuned).rows:
        for cell in row[1:4]:
            assert re.fullmatch(r"100\.0\xa0% \(\d\d\.\d\xa0% to 100\.0\xa0%\)", str(cell))


def test_facts_may_be_few(tmp_path: Path) -> None:
    test_set, head_only, fine_tuned, _ = make_test_set(tmp_path, 2, 20)
    few = replace(make_facts(test_set.labels), notes=(), duplicates={}, licenses={})
    params = EvaluateParams(bootstrap=100, gallery=0)
    _, results = classifier_results(test_set, head_only, fine_tuned, params=params, seed=0, histories={}, facts=few)
    assert HtmlPage(results.report).open == []
