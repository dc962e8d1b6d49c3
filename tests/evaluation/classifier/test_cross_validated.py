"""Cross-validation in metrics.json, in the report and in the stage's line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from examined_pictures import gaussian
from headstart.cross_validation.calibration import average, calibrate_out_of_fold
from headstart.cross_validation.figures import CrossValidation, compare, measure, widen
from headstart.evaluation.classifier.cross_validated import cross_validated_results
from headstart.evaluation.classifier.cross_validated_report import Gain, gain_sentence
from headstart.evaluation.classifier.results import classifier_results
from headstart.evaluation.report_facts import ReportFacts
from headstart.metrics.calibration import ClassifierPredictions, calibrate_logits
from headstart.metrics.classification import ClassifierEvaluation, evaluate_classifiers
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import difference_interval, mean_interval
from headstart.params.root import EvaluateParams
from html_page import HtmlPage
from synthetic_logits import make_facts, make_logits, make_test_set

LABELS = ("ant", "bee")


def percent(share: float | None) -> str:
    return f"{100 * (share or 0):.1f}\N{NO-BREAK SPACE}%"


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
    assert accuracy.high is not None
    test = evaluation.head_only.accuracy
    assert test.low is not None
    assert test.high is not None
    ratio = (test.high - test.low) / (accuracy.high - accuracy.low)
    assert ratio > 1.5
    recalls = {name: of.recall.value or 0 for name, of in found.metrics.per_class.items()}
    lowest = min(recalls, key=recalls.__getitem__)
    assert f"Recall is lowest for “{lowest}”: {percent(recalls[lowest])} (" in text
    for part in (
        f"The head alone predicts {100 * accuracy.value:.1f}\N{NO-BREAK SPACE}% of 300 pictures correctly.",
        "Each was examined once, by the one of 5 models that had seen neither it nor a near-duplicate of it.",
        "On other pictures of the same kind these 5 models (240 pictures to learn from each) are right for probably "
        f"{percent(accuracy.low)} to {percent(accuracy.high)} on average (95\N{NO-BREAK SPACE}% interval). That covers "
        "the choice of the pictures examined, but neither another division into folds, nor another seed of training, "
        "nor settings that were chosen by figures of these same pictures. Always",
        f"Always predicting “ant” would be correct for {percent(np.mean(found.examined.targets == 0))} of them.",
        f"The head-only model, on the 40 test pictures alone: {percent(test.value)} ({percent(test.low)} to "
        f"{percent(test.high)}), an interval {ratio:.1f} times as wide.",
        "The exported model is none of these: it learned from 14 pictures and was fine-tuned, which "
        "evaluate.folds_fine_tune: true repeats in each fold.",
        "7 pictures that a source pins to test stayed apart, for the test set alone.",
    ):
        assert part in text, part
    assert list(section.notes) == ["The backbone may have seen these."]
    assert "simulation" not in text
    kept = cross_validated_results(found, evaluation, replace(facts, kept_head="The head was kept.")).section
    assert kept is not None
    assert any(sentence.startswith("The exported model itself, on the 40 test") for sentence in kept.sentences)


def test_fine_tuned_models_units_and_few_of_them(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    found = found_with("fine_tuned", pictures=120, per_unit=10, skipped="Too many.")
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    text = " ".join(section.sentences)
    for part in (
        "The fine-tuned model predicts",
        "nor any picture of its unit (12 units: a group and its near-duplicates, or a picture alone).",
        "(96 pictures to learn from each, 20 more to choose the epoch)",
        "these same pictures. It was checked by simulation for linear heads, not for fine-tuning.",
        "The exported model itself, on the 40 test pictures alone: ",
        "The exported model is a further one, made in the same way from 14 pictures.",
        "Too many.",
    ):
        assert part in text, part
    _, note = section.notes
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
    assert str(rows["the head alone"][-1]).endswith(": worse beyond chance")
    log_loss = found.alternatives["head"].log_loss
    assert rows["the head alone"][2] == f"{log_loss.value:.3f} ({log_loss.low:.3f} to {log_loss.high:.3f})"
    assert {"linear head, features of several blocks", "mean of both models’ probabilities"} < set(rows)


def test_which_other_model_is_better_is_said_in_words(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    fine_tuned, head = (
        cross_validated_results(found_with(model), evaluation, facts).section for model in ("fine_tuned", "head")
    )
    assert fine_tuned is not None
    assert head is not None
    assert "None of the other models in the last table is more accurate" in fine_tuned.sentences[-1]
    better = "More accurate on the same pictures, beyond chance: linear head, features of several blocks."
    assert better in head.sentences
    assert "240 pictures to learn from each" in head.alternatives.caption


def test_folds_that_kept_the_head_are_counted(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    found = found_with("fine_tuned")
    head, tuned = found.predictions["head"], found.predictions["fine_tuned"]
    in_first = (found.examined.fold == 0)[:, None]
    mixed = replace(tuned, raw=np.where(in_first, head.raw, tuned.raw))
    found = replace(found, predictions={"head": head, "fine_tuned": mixed})
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    sentence = f"In 1 of the {found.examined.folds} folds fine-tuning was not kept, but the head-only model."
    assert sentence in section.sentences


def test_all_metrics_have_their_widened_intervals(evaluation: ClassifierEvaluation, facts: ReportFacts) -> None:
    found = found_with()
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    rows = {row[0]: row[1:] for row in section.metrics.rows}
    assert list(rows) == ["Balanced accuracy", "ROC AUC", "Log loss", "Brier score"]
    loss, balanced = found.metrics.log_loss, found.metrics.balanced_accuracy
    assert rows["Log loss"] == (f"{loss.value:.3f}", f"{loss.low:.3f} to {loss.high:.3f}")
    assert rows["Balanced accuracy"] == (
        percent(balanced.value),
        f"{percent(balanced.low)} to {percent(balanced.high)}",
    )
    assert section.classes.caption == "Cross-validated metrics by label"
    recall = found.metrics.per_class["bee"].recall
    assert section.classes.rows[1][:2] == (
        "bee",
        f"{percent(recall.value)} ({percent(recall.low)} to {percent(recall.high)})",
    )


def test_cross_validation_says_whether_fine_tuning_helped_where_the_test_set_cannot(
    evaluation: ClassifierEvaluation, facts: ReportFacts
) -> None:
    found = found_with("fine_tuned")
    section = cross_validated_results(found, evaluation, facts).section
    assert section is not None
    assert section.gain is not None
    head, measured = found.predictions["head"], found.predictions["fine_tuned"]
    gain = widen(difference_interval(measured.correct - head.correct, head.units), 300)
    assert gain.low is not None
    assert gain.high is not None
    assert gain.low > 0
    unclear = Estimate(0.0, -0.05, 0.05)
    changed = (
        f"changed accuracy by {100 * (gain.value or 0):+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    )
    assert gain_sentence(section.gain, unclear) == f"Cross-validation, on 300 pictures, can: fine-tuning {changed}."
    assert gain_sentence(section.gain, gain) == f"In cross-validation, on 300 pictures, it {changed}."
    small = Gain(Estimate(0.01, -0.01, 0.03), 1200)
    points = "+1.0 points (\N{MINUS SIGN}1.0 to +3.0)"
    assert gain_sentence(small, unclear) == (
        f"Cross-validation, on 1,200 pictures, cannot either: fine-tuning changed accuracy by {points}."
    )
    assert gain_sentence(small, gain).endswith(f"it changed accuracy by {points}, which may be chance.")
    alone = cross_validated_results(found_with(), evaluation, facts).section
    assert alone is not None
    assert alone.gain is None


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
    assert "First cross-validation: all pictures, each predicted by a model that did not see it. Then the" in both
    assert both.index("The backbone may have seen these.") < both.index("The head alone predicts")
    assert [page.count("The backbone may have seen these.") for page in pages] == [1, 1]
    assert ['<h2 id="summary">Test set</h2>' in page for page in pages] == [True, False]
    assert ['<h2 id="summary">Summary</h2>' in page for page in pages] == [False, True]
    assert "Cross-validated metrics by label" in both
    assert "Other cross-validated metrics" in both
    assert "Other models on the same folds" in both
    assert "cross-validation" not in without.lower()
    assert "Metrics on the test set: pictures used neither for training nor for validation." in without
    for page in pages:
        assert not HtmlPage(page).open
