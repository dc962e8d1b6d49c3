"""The rules of an exported classifier, fitted on pictures not trained on, and their figures on the test set."""

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from conftest import Project
from headstart.base.arrays import Floats, Ints
from headstart.evaluation.classifier.calibration import choose_calibration
from headstart.evaluation.classifier.model_features import ModelFeatures
from headstart.evaluation.classifier.unknown import (
    Answers,
    fit_answers,
    measure_sets,
)
from headstart.evaluation.classifier.unknown_report import answers_json, answers_section
from headstart.metrics.calibration import ClassifierPredictions, SplitLogits, calibrate_logits
from headstart.metrics.estimate import Estimate
from headstart.models.answer_rules import read_answer_rules
from headstart.models.strangeness_features import FeaturePlan

LABELS = ("cat", "dog", "owl")
PLAN = FeaturePlan((), ((0, 8),))


def drawn(count: int, seed: int, shift: float = 0.0) -> tuple[Floats, Ints, Floats]:
    """Features, labels and logits of pictures; `shift` moves features and logits away from those of `shift=0`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    features = np.eye(3, 8)[labels] * 4 + rng.normal(size=(count, 8)) * 0.4 + 1 + shift * np.eye(1, 8, 6)
    logits = rng.normal(size=(count, 3)) + (2.5 - shift) * np.eye(3)[labels]
    return features, labels, logits


def make_answers(
    shift: float = 0.0, val: int = 300, confidence: float = 0.9, frozen_seed: int | None = None, test: int = 200
) -> Answers:
    """Test pictures that differ from the validation pictures by `shift`."""
    bank, bank_labels, _ = drawn(300, 0)
    val_features, val_labels, val_logits = drawn(val, 1)
    test_features, test_labels, test_logits = drawn(test, 2, shift)
    strangers = np.random.default_rng(3).normal(size=(40, 8))
    generated = {"noise": strangers, "text": bank}
    features = ModelFeatures(
        PLAN, bank, bank_labels, np.arange(300), val_features, np.arange(val), test_features, generated
    )
    logits = SplitLogits(val_logits, val_labels, test_logits, test_labels)
    predictions = calibrate_logits(logits)
    calibration = choose_calibration(logits, features.val_units, None, (), model="fine_tuned")
    return fit_answers(features, logits, predictions, LABELS, calibration, confidence, frozen_seed)


def test_a_backbone_that_learned_nothing_has_its_training_pictures_for_the_threshold_too() -> None:
    """Eight validation pictures alone give none."""
    answers = make_answers(val=8, frozen_seed=0)
    assert (answers.unknown.threshold_from, answers.unknown.note) == (308, "")
    assert answers.unknown.kept.value == pytest.approx(0.95, abs=0.04)
    assert make_answers(val=8).unknown.threshold_from == 8


def test_pictures_of_the_same_kind_are_kept_and_covered_as_promised() -> None:
    answers = make_answers()
    assert answers.unknown.kept.value == pytest.approx(0.95, abs=0.04)
    assert answers.sets.coverage.value == pytest.approx(0.9, abs=0.05)
    for estimate in (answers.unknown.kept, answers.sets.coverage, *answers.sets.by_label.values()):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < (estimate.value or 0) < estimate.high
    assert sum(answers.sets.shares.values()) == pytest.approx(1)
    mean = sum(count * share for count, share in answers.sets.shares.items())
    assert answers.sets.size.value == pytest.approx(mean)


def test_strangers_are_turned_away_and_training_pictures_are_not() -> None:
    generated = make_answers().unknown.generated
    assert generated["noise"].fpr95.value == 0
    assert (generated["noise"].auroc.value or 0) > 0.99
    assert (generated["text"].fpr95.value or 0) > 0.94, "these are the bank's own pictures"
    assert (generated["text"].auroc.high or 1) < 0.5
    assert sorted(make_answers().unknown.left_out) == list(LABELS)


def test_metrics_json_has_every_figure_with_its_interval() -> None:
    written: Any = answers_json(make_answers())
    unknown, sets = written["unknown"], written["prediction_sets"]
    with_interval = {f"{name}{end}" for name in ("fpr95", "auroc") for end in ("", "_low", "_high")}
    assert {"kept", "kept_low", "kept_high"} | with_interval <= set(unknown)
    for figures in (unknown, *unknown["left_out"].values(), *unknown["generated"].values()):
        assert with_interval <= set(figures)
        for name in ("fpr95", "auroc"):
            low, value, high = (figures[f"{name}{end}"] for end in ("_low", "", "_high"))
            assert low <= value <= high
            assert high - low > 0.01, "also of a figure of exactly 0 or 1"
    assert set(unknown["left_out"]) == set(LABELS)
    assert set(unknown["generated"]) == {"noise", "text"}
    assert {"coverage", "coverage_low", "coverage_high", "size", "size_low", "size_high"} <= set(sets)
    assert sets["confidence"] == 0.9
    assert set(sets["per_class"]) == set(LABELS)
    assert sets["one_label"] + sets["two_labels"] <= 1
    assert answers_json(None) == {}


def test_the_reports_tables_have_every_figure_with_its_interval() -> None:
    answers = make_answers()
    section = answers_section(answers)
    interval = "95 % interval"
    assert section.foreign.header == ("kind", "taken for a label", interval, "AUROC", interval, "pictures")
    noise = answers.unknown.generated["noise"]
    assert section.foreign.rows[0] == (
        "noise",
        "0.0\xa0%",
        f"0.0\xa0% to {100 * (noise.fpr95.high or 0):.1f}\xa0%",
        f"{noise.auroc.value:.3f}",
        f"{noise.auroc.low:.3f} to {noise.auroc.high:.3f}",
        40,
    )
    few = answers_section(make_answers(test=12))
    assert all(row[4].count("only 12 units") == 1 for row in few.foreign.rows[:2] if isinstance(row[4], str))
    assert all(str(row[2]).count("unit") == 1 for row in few.coverage.rows), "a note is given once"


def test_the_report_says_where_the_coverage_falls_short() -> None:
    fine, short = (answers_section(make_answers(shift)) for shift in (0.0, 2.4))
    assert not any("falls short" in sentence for sentence in fine.sets)
    (sentence,) = (sentence for sentence in short.sets if "falls short" in sentence)
    assert sentence.startswith("Coverage falls short of 90\xa0% for all labels together, ")
    assert "“cat”" in sentence
    assert "fitted on 300 pictures of the validation set" in short.sets[0]


def test_the_promise_is_of_each_label_where_each_has_its_threshold() -> None:
    answers = make_answers()
    assert answers.sets.for_each_label
    assert answers_section(answers).sets[0] == (
        "A prediction set holds the labels that a picture may have. For each label at least 90\xa0% of the sets are to "
        "hold it where it is right; more do where the most probable label alone is right more often, since no set is "
        "empty. The thresholds (conformal prediction, LAC, one a label) are fitted on 300 pictures of the validation "
        "set."
    )
    few = make_answers(val=60)
    assert not few.sets.for_each_label
    sentence = answers_section(few).sets[0]
    assert ". At least 90\xa0% of the sets are to hold the right one; more do where" in sentence
    assert "(conformal prediction, LAC; labels with few pictures share one)" in sentence
    out_of_fold = replace(answers, sets=replace(answers.sets, out_of_fold=True))
    assert (
        answers_section(out_of_fold)
        .sets[0]
        .endswith(" Those models are not the exported one, so the promise is approximate.")
    )


def test_the_mean_size_of_a_set_has_its_interval_and_shares_are_counts() -> None:
    sets = make_answers().sets
    assert (
        f"The sets hold {sets.size.value:.2f} ({sets.size.low:.2f} to {sets.size.high:.2f}) labels on average. Counts "
        f"of this test set: {100 * sets.shares[1]:.1f}\xa0% hold one label, "
    ) in answers_section(make_answers()).sets[1]


def test_a_label_left_out_is_the_harder_case() -> None:
    answers = make_answers()
    worst = max(answers.unknown.left_out, key=lambda label: answers.unknown.left_out[label].fpr95.value or 0)
    figures = answers.unknown.left_out[worst]
    first, *_, last = answers_section(answers).unknown
    assert first.startswith(
        "A picture is “none of these” where it lies farther from the 300 training pictures than a threshold that about "
        "95 in 100 familiar pictures stay within ("
    )
    assert last.startswith(
        f"Harder is a label that training did not have. Measured without “{worst}”, the worst case, "
        f"{100 * (figures.fpr95.value or 0):.1f}\xa0% ("
    )
    assert ") of its pictures would be taken for one of the other labels. The network" in last
    familiar = replace(figures, auroc=Estimate(0.382, 0.34, 0.43))
    unknown = replace(answers.unknown, left_out={**answers.unknown.left_out, worst: familiar})
    assert (
        "taken for one of the other labels; they look even more familiar than test pictures do (AUROC 0.382 (0.340 to "
        "0.430)). The network"
    ) in answers_section(replace(answers, unknown=unknown)).unknown[-1]


def test_too_few_pictures_have_notes() -> None:
    answers = make_answers(val=8)
    assert answers.rules.threshold == float("inf")
    assert answers.unknown.kept.value == 1
    section = answers_section(answers)
    assert any(sentence.startswith("No picture is turned away: ") for sentence in section.unknown)
    assert any("every set holds all labels" in sentence for sentence in section.sets)
    assert answers.sets.shares == {3: 1.0}


def test_a_label_without_test_pictures_has_no_coverage() -> None:
    predictions = ClassifierPredictions(np.array([0, 0, 1]), np.eye(3), np.eye(3), 1.0)
    _, by_label, _, shares = measure_sets(np.eye(3, dtype=bool), predictions, LABELS)
    assert (by_label["owl"].value, by_label["owl"].absent) == (None, "no test pictures")
    assert (by_label["cat"].value, by_label["dog"].value) == (0.5, 0)
    assert shares == {1: 1.0}


def test_the_stage_writes_rules_metrics_and_the_report(project: Project) -> None:
    folder = project.root / "stages/evaluate"
    rules = read_answer_rules(folder / "unknown.safetensors")
    assert len(rules.bank.rows) == len(tiny.manifest(project.root, "split", "train").images)
    written = tiny.read_json(folder / "metrics.json")
    assert written["unknown"]["pictures"] == 6 * 32
    assert set(written["unknown"]["left_out"]) == {"blue", "red"}
    text = html.unescape(re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text(encoding="utf-8")))
    assert "None of these, or one of two" in text
    assert "the threshold, and the training pictures that strangeness is measured from, are taken as given." in text
    assert written["unknown"]["note"][1:] in text
    assert "of the sets are to hold the right one" in text


def test_a_detector_has_no_rules(detect_project: Project) -> None:
    folder: Path = detect_project.root / "stages/evaluate"
    assert (folder / "unknown.safetensors").is_file()
    assert "unknown" not in tiny.read_json(folder / "metrics.json")
