"""Cross-validation in metrics.json, in the report and in the stage's line."""

from pathlib import Path

import numpy as np
import pytest

from examined_pictures import gaussian
from headstart.cross_validation.calibration import average, calibrate_out_of_fold
from headstart.cross_validation.figures import CrossValidation, compare, measure, widen
from headstart.evaluation.classifier.cross_validated import cross_validated_results
from headstart.evaluation.classifier.results import classifier_results
from headstart.evaluation.report_facts import ReportFacts
from headstart.metrics.calibration import ClassifierPredictions, calibrate_logits
from headstart.metrics.classification import ClassifierEvaluation, evaluate_classifiers
from headstart.metrics.intervals import difference_interval, mean_interval
from headstart.params.root import EvaluateParams
from html_page import HtmlPage
from synthetic_logits import make_facts, make_logits, make_test_set

LABELS = ("ant", "bee")


def found_with(model: str = "head", pictures: int = 300, per_unit: int = 1, skipped: str = "") -> CrossValidation:
    examined, features = gaussian(pictures, 5, per_unit=per_unit)

    def answers(threshold: float) -> ClassifierPredictions:
        return calibrate_out_of_fold(np.stack([0 * features[:, 0], features[:, 0] - threshold], axis=1), examined)

    predictions = {"head": answers(2.2)} | ({"fine_tuned": answers(1.0)} if model == "fine_tuned" else {})
    measured = predictions[model]
    others = {"linear_blocks": answers(1.2)}
    if model == "fine_tuned":
        others |= {"head": predictions["head"], "mean": average(predictions["head"], measured)}
    return CrossValidation(
        examined,
        model,
        learned=pictures * 0.8,
        set_aside=20.0 if model == "fine_tuned" else 0.0,
        predictions=predictions,
        metrics=measure(measured, LABELS, 0),
        alternatives={name: compare(other, measured) for name, other in others.items()},
        pinned=7,
        skipped=skipped,
    )


@pytest.fixture(scope="module")
def evaluation() -> ClassifierEvaluation:
    """Of 40 test pictures."""
    head_only, fine_tuned = (calibrate_logits(make_logits(40, 2, seed)) for seed in (1, 2))
    fine_tuned = ClassifierPredictions(head_only.labels, fine_tuned.raw, fine_tuned.calibrated, 1.0)
    return evaluate_classifiers(head_only, fine_tuned, LABELS, 0)


@pytest.fixture
def facts() -> ReportFacts:
    return make_facts(LABELS)


@pytest.mark.parametrize(("model", "single"), [("head", "head_only"), ("fine_tuned", "fine_tuned")])
def test_metrics_have_the_figure_its_interval_and_the_other_models(
    evaluation: ClassifierEvaluation, facts: ReportFacts, model: str, single: str
) -> None:
    found = found_with(model)
    own, other = found.predictions[model], found.alternatives["linear_blocks"]
    cv = cross_validated_results(found, evaluation, facts).metrics["cv"]
    assert isinstance(cv, dict)
    expected = widen(mean_interval(own.correct, own.units), 300)
    assert cv["accuracy"] == pytest.approx(own.correct.mean(), abs=1e-6)
    assert (cv["accuracy_low"], cv["accuracy_high"]) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert {"balanced_accuracy", "roc_auc", "log_loss", "brier_score"} <= cv.keys()
    assert (cv["model"], cv["folds"], cv["pictures"], cv["units"]) == (model, 5, 300, 300)
    test = getattr(evaluation, single).accuracy
    width = cv["accuracy_high"] - cv["accuracy_low"]
    assert cv["width_ratio"] == pytest.approx(width / (test.high - test.low), abs=1e-5)
    assert cv["width_ratio"] < 0.6, "300 pictures instead of 40"
    assert cv["alternatives"]["linear_blocks"]["accuracy"] == pytest.approx(other.accuracy.value, abs=1e-6)
    assert cv["alternatives"]["linear_blocks"]["difference_low"] == pytest.approx(other.difference.low, abs=1e-6)
    assert ({"head", "mean"} <= cv["alternatives"].keys()) == (model == "fine_tuned")


def test_the_sentences_say_what_was_examined_and_what_the_interval_covers(
    evaluation: ClassifierEvaluation, facts: ReportFacts
) -> None:
    found = found_with()
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    text = " ".join(section.sentences)
    accuracy = found.metrics.accuracy
    assert accuracy.value is not None
    assert accuracy.low is not None
    for part in (
        f"The head alone predicts {100 * accuracy.value:.1f}\N{NO-BREAK SPACE}% of 300 pictures correctly.",
        "Each was examined once, by one of 5 models, that had learned from the other folds and seen neither it nor a "
        "near-duplicate of it.",
        "For models that learn from as many pictures of the same kind (240) the true share is probably between "
        f"{100 * accuracy.low:.1f}\N{NO-BREAK SPACE}% and",
        "is of one division into folds, and not of settings that were chosen by looking at this figure.",
        "On the 40 test pictures alone the same kind of model has",
        "narrower.",
        "The exported model is none of these: it learned from 14 pictures and was fine-tuned, which "
        "evaluate.folds_fine_tune: true repeats in each fold.",
        "7 pictures that a source pins to test stayed apart, for the test set alone.",
    ):
        assert part in text, part
    assert not section.notes


def test_fine_tuned_models_units_and_few_of_them(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    found = found_with("fine_tuned", pictures=120, per_unit=10, skipped="Too many.")
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    text = " ".join(section.sentences)
    for part in (
        "The fine-tuned model predicts",
        "nor any picture of its unit (12 units: a group and its near-duplicates, or a picture alone).",
        "(96, while 20 more chose the epoch)",
        "The exported model is none of these: it learned from 14 pictures, in the same way.",
        "Too many.",
    ):
        assert part in text, part
    (note,) = section.notes
    assert "only 12 units" in note


def test_the_table_compares_models_picture_by_picture(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    found = found_with("fine_tuned")
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    rows = {row[0]: row for row in section.alternatives.rows}
    assert next(iter(rows)) == "the fine-tuned model, as above"
    assert rows["the fine-tuned model, as above"][-1] == "the same model"
    head, measured = found.predictions["head"], found.predictions["fine_tuned"]
    gain = widen(difference_interval(head.correct - measured.correct, head.units), 300)
    assert gain.high is not None
    assert gain.high < 0, "so far off that it cannot be chance"
    assert str(rows["the head alone"][-1]).startswith(f"\N{MINUS SIGN}{-100 * (gain.value or 0):.1f} (")
    assert str(rows["the head alone"][-1]).endswith(": worse")
    assert {"linear head, features of several blocks", "mean of both models’ probabilities"} < set(rows)


def test_the_line_leads_with_it(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    found = found_with()
    line = cross_validated_results(found, evaluation, facts).line
    assert line.startswith(f"cross-validated accuracy {found.metrics.accuracy.value:.4f} (95 % interval 0.")
    assert line.endswith(" of the head alone, 300 pictures examined once each in 5 folds; ")


def test_the_report_begins_with_it_and_without_it_with_the_test_set(tmp_path: Path) -> None:
    test_set, head_only, fine_tuned, histories = make_test_set(tmp_path, 2, 40, LABELS)
    pages = []
    for found in (found_with(), None):
        _, results = classifier_results(
            test_set,
            head_only,
            fine_tuned,
            params=EvaluateParams(gallery=2),
            seed=0,
            histories=histories,
            facts=make_facts(LABELS),
            cross_validation=found,
        )
        pages.append(results.report)
        assert ("cv" in results.metrics) == (found is not None)
        assert (results.out_of_fold == "[]\n") == (found is None)
        assert bool(results.lead) == (found is not None)
    both, without = pages
    assert both.index('id="cross-validation"') < both.index('id="summary"')
    assert both.count('class="big"') == 2
    assert "First the figures of cross-validation" in both
    assert "Other models on the same folds" in both
    assert "cross-validation" not in without.lower()
    assert "Metrics on the test set: pictures used neither for training nor for validation." in without
    for page in pages:
        assert not HtmlPage(page).open
