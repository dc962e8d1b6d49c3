"""The exam's figures against scikit-learn, torchmetrics, scipy and cases worked by hand; and what the stage writes."""

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from exams import NAMES, make_exam, make_facts, make_logits
from headstart import bootstrap, scores
from headstart.calibration import Answers, Logits, answer, fit_temperature
from headstart.errors import UserError
from headstart.evaluate import to_metrics, write_evaluation
from headstart.files import write_bytes
from headstart.params import EvaluateParams

RATES = ("accuracy", "balanced_accuracy", "roc_auc", "ece", "ece_calibrated")
seeds = st.integers(0, 2**31)


def answers_of(probabilities: list[list[float]], labels: list[int]) -> Answers:
    """Answers with these very probabilities, before and after a calibration that changes nothing."""
    array = np.array(probabilities, dtype=float)
    return Answers(np.array(labels), array, array, 1.0)


# --- point figures ---


def test_figures_of_a_case_worked_by_hand() -> None:
    found = scores.score(answers_of([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], [0, 1, 1, 0]), NAMES[2], 100, 0)
    assert found.accuracy.value == 0.5
    assert found.balanced_accuracy.value == 0.5
    # Pairs (cracked, whole): 0.4 > 0.1, 0.4 < 0.8, 0.7 > 0.1, 0.7 < 0.8.
    assert found.roc_auc.value == 0.5
    assert found.log_loss.value == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean())
    # Each picture alone in its bin: the gaps are 0.1, 0.6, 0.3 and 0.8.
    assert found.ece.value == pytest.approx(0.45)
    whole, cracked = (found.per_class[name] for name in NAMES[2])
    assert (whole.precision, whole.recall, whole.f1, whole.support) == (0.5, 0.5, 0.5, 2)
    assert cracked.support == 2


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_are_those_of_torchmetrics(classes: int) -> None:
    import torch
    from torchmetrics import classification

    logits = make_logits(300, classes, seed=1)
    found = scores.score(answer(logits), NAMES[classes], 100, 0)
    probabilities = torch.softmax(torch.from_numpy(logits.test), dim=1)
    labels = torch.from_numpy(logits.test_labels)
    ece = classification.MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    accuracy = classification.MulticlassAccuracy(classes, average="micro")
    balanced = classification.MulticlassAccuracy(classes, average="macro")
    auc = classification.MulticlassAUROC(classes, average="macro")
    assert found.ece.value == pytest.approx(float(ece(probabilities, labels)), abs=1e-6)
    assert found.accuracy.value == pytest.approx(float(accuracy(probabilities, labels)), abs=1e-6)
    assert found.balanced_accuracy.value == pytest.approx(float(balanced(probabilities, labels)), abs=1e-6)
    assert found.roc_auc.value == pytest.approx(float(auc(probabilities, labels)), abs=1e-6)


def test_a_class_without_test_pictures_has_no_roc_auc_and_no_recall() -> None:
    found = scores.score(answers_of([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]], [0, 1, 1]), NAMES[3], 100, 0)
    assert found.roc_auc == scores.Estimate(None, absent="no test picture of chipped")
    assert found.balanced_accuracy.value == 0.75
    assert found.per_class["chipped"] == scores.ClassScores(precision=0.0, recall=None, f1=0.0, support=0)


def test_many_classes_without_test_pictures_are_not_all_named() -> None:
    found = scores.score(answer(make_logits(2, 30, seed=0)), NAMES[30], 100, 0)
    assert found.roc_auc.absent == "no test picture of whole, cracked, chipped and 25 more"


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    found = scores.score(answers_of([[0.8, 0.2], [0.7, 0.3], [0.9, 0.1]], [0, 1, 1]), NAMES[2], 100, 0)
    assert found.per_class["cracked"] == scores.ClassScores(precision=None, recall=0.0, f1=0.0, support=2)
    assert found.balanced_accuracy.value == 0.5


def test_one_test_picture() -> None:
    found = scores.score(answers_of([[0.8, 0.2]], [0]), NAMES[2], 100, 0)
    assert found.accuracy == scores.Estimate(1.0, 1.0, 1.0)
    assert found.roc_auc.absent == "no test picture of cracked"


# --- calibration ---


def test_temperature_of_logits_blown_up_is_found_again() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3))
    # Labels drawn from softmax(logits) make the temperature of `logits` 1 and that of 2.5 * logits 2.5.
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.05)


def test_temperature_is_the_least_loss_by_brute_force() -> None:
    logits = make_logits(200, 4, seed=3)
    grid = np.geomspace(0.05, 20, 2000)
    shifted = logits.val[None] / grid[:, None, None]
    loss = np.log(np.exp(shifted).sum(axis=2)) - shifted[:, np.arange(200), logits.val_labels]
    assert fit_temperature(logits.val, logits.val_labels) == pytest.approx(grid[loss.mean(axis=1).argmin()], rel=5e-3)


def test_a_val_set_without_mistakes_tells_no_temperature() -> None:
    assert fit_temperature(np.eye(3) * 5, np.arange(3)) == 1


def test_a_model_that_is_always_wrong_keeps_the_temperature_in_bounds() -> None:
    assert fit_temperature(np.eye(3) * 5, np.array([1, 2, 0])) == pytest.approx(20, rel=1e-3)


def test_calibration_changes_no_answer() -> None:
    found = answer(make_logits(200, 6, seed=4))
    assert np.array_equal(found.calibrated.argmax(axis=1), found.predicted)


# --- intervals ---


@pytest.mark.parametrize("classes", [2, 4])
def test_resamples_are_what_scikit_learn_says_of_sample_weights(classes: int) -> None:
    """The vectorised figures and scikit-learn's are the same, on ties and on resamples that miss a class too."""
    found = answer(make_logits(40, classes, seed=5))
    found = Answers(found.labels, found.raw.round(1) + 1e-3, found.calibrated, found.temperature)  # ties
    found = Answers(found.labels, found.raw / found.raw.sum(axis=1, keepdims=True), found.calibrated, 1.0)
    weights = np.concatenate(list(bootstrap.draws(40, 30, seed=0)))
    figures = bootstrap.figures(found, weights)
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(40), weight.astype(int))
        labels, predicted, raw = found.labels[drawn], found.predicted[drawn], found.raw[drawn]
        there = np.unique(labels)
        assert figures["accuracy"][row] == pytest.approx(metrics.accuracy_score(labels, predicted))
        recall = metrics.recall_score(labels, predicted, labels=there, average="macro")
        assert figures["balanced_accuracy"][row] == pytest.approx(recall)
        loss = metrics.log_loss(labels, raw, labels=np.arange(classes))
        assert figures["log_loss"][row] == pytest.approx(loss)
        wanted = [1] if classes == 2 else there
        areas = [metrics.roc_auc_score(labels == c, raw[:, c]) for c in wanted]
        assert figures["roc_auc"][row] == pytest.approx(np.mean(areas))


def test_resamples_do_not_depend_on_how_they_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(bootstrap.draws(30, 50, seed=1)))
    monkeypatch.setattr(bootstrap, "_BLOCK", 100)
    blocks = list(bootstrap.draws(30, 50, seed=1))
    assert len(blocks) == 17
    assert np.array_equal(np.concatenate(blocks), whole)
    assert (whole.sum(axis=1) == 30).all()


def test_interval_of_accuracy_is_scipys() -> None:
    found = answer(make_logits(300, 3, seed=6))
    ours = scores.score(found, NAMES[3], 4000, 0).accuracy
    theirs = stats.bootstrap((found.correct,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.007)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.007)


def test_paired_difference_of_one_model_with_itself_is_nothing() -> None:
    found = answer(make_logits(50, 3, seed=7))
    assert scores.evaluate(found, found, NAMES[3], 100, 0).difference == scores.Estimate(0.0, 0.0, 0.0)


def test_difference_is_narrower_than_the_two_intervals_apart() -> None:
    """Pairing matters: two models that differ on 5 of 200 pictures differ by little, for certain."""
    labels = np.zeros(200, dtype=int)
    sure, unsure = [0.9, 0.1], [0.1, 0.9]
    head = answers_of([unsure] * 45 + [sure] * 155, labels.tolist())
    tuned = answers_of([unsure] * 40 + [sure] * 160, labels.tolist())
    difference = scores.evaluate(head, tuned, NAMES[2], 1000, 0).difference
    assert difference.value == pytest.approx(0.025)
    assert difference.low == pytest.approx(0.005, abs=0.006)
    assert difference.high == pytest.approx(0.0475, abs=0.006)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, pictures=st.integers(1, 60), classes=st.integers(2, 6), scale=st.floats(0.01, 100))
def test_intervals_hold_their_figure_and_lie_in_range(seed: int, pictures: int, classes: int, scale: float) -> None:
    found = scores.score(answer(make_logits(pictures, classes, seed, scale)), NAMES[classes], 100, 0)
    for name, figure in found.headline().items():
        if figure.value is None:
            assert figure.absent
            continue
        assert figure.low is not None
        assert figure.high is not None
        assert 0 <= figure.low <= figure.value <= figure.high
        assert name not in RATES or figure.high <= 1 + 1e-12


@settings(max_examples=25, deadline=None)
@given(seed=seeds, classes=st.integers(2, 5))
def test_the_order_of_pictures_changes_no_point_figure(seed: int, classes: int) -> None:
    logits = make_logits(40, classes, seed)
    order = np.random.default_rng(seed).permutation(40)
    shuffled = Logits(logits.val, logits.val_labels, logits.test[order], logits.test_labels[order])
    one, other = (scores.score(answer(x), NAMES[classes], 100, 0) for x in (logits, shuffled))
    for name, figure in one.headline().items():
        assert other.headline()[name].value == (None if figure.value is None else pytest.approx(figure.value))
    assert one.per_class == other.per_class


# --- what the stage writes ---


def run(folder: Path, classes: int = 3, pictures: int = 30, gallery: int = 5) -> Path:
    exam, head_only, fine_tuned, histories = make_exam(folder, classes, pictures)
    out = folder / "stages" / "evaluate"
    params = EvaluateParams(bootstrap=100, gallery=gallery)
    write_evaluation(
        out,
        exam=exam,
        head_only=head_only,
        fine_tuned=fine_tuned,
        params=params,
        seed=0,
        histories=histories,
        facts=make_facts(exam.labels),
    )
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage wrote of 30 pictures and 3 classes; only for reading."""
    return run(tmp_path_factory.mktemp("exam"))


def test_two_runs_leave_the_same_bytes(out: Path, tmp_path: Path) -> None:
    one, other = out, run(tmp_path)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert {"metrics.json", "predictions.json", "report.html"} <= {str(path) for path in files}
    for path in files:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


def test_metrics_are_laid_out_for_dvc(out: Path) -> None:
    found = json.loads((out / "metrics.json").read_text())
    assert list(found) == ["test", "head_only", "difference"]
    for model in ("test", "head_only"):
        assert found[model]["accuracy_low"] <= found[model]["accuracy"] <= found[model]["accuracy_high"]
        assert found[model]["pictures"] == 30
        assert set(found[model]["per_class"][NAMES[3][0]]) == {"precision", "recall", "f1", "support"}
    gain = found["test"]["accuracy"] - found["head_only"]["accuracy"]
    assert found["difference"]["accuracy"] == pytest.approx(gain, abs=2e-6)


def test_metrics_say_why_a_figure_is_absent() -> None:
    found = answers_of([[0.8, 0.2], [0.7, 0.3]], [0, 0])
    written = to_metrics(scores.evaluate(found, found, NAMES[2], 100, 0))
    model = json.loads(json.dumps(written["test"], allow_nan=False))
    assert model["roc_auc_absent"] == "no test picture of cracked"
    assert "roc_auc" not in model
    assert "recall" not in model["per_class"]["cracked"]


def test_predictions_hold_every_picture_and_both_models(out: Path) -> None:
    found = json.loads((out / "predictions.json").read_text())
    assert len(found) == 30
    right = [picture["fine_tuned"]["correct"] for picture in found]
    assert np.mean(right) == pytest.approx(json.loads((out / "metrics.json").read_text())["test"]["accuracy"])
    for picture in found:
        for model in ("head_only", "fine_tuned"):
            said = picture[model]
            assert sum(said["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert said["predicted"] == max(said["probabilities"], key=said["probabilities"].get)
            assert said["correct"] == (said["predicted"] == picture["label"])


def test_gallery_holds_the_surest_mistakes(out: Path) -> None:
    with (out / "gallery" / "mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {p["file_name"]: p["fine_tuned"] for p in json.loads((out / "predictions.json").read_text())}
    wrong = sorted((max(p["probabilities"].values()) for p in found.values() if not p["correct"]), reverse=True)
    assert [float(row["confidence"]) for row in rows] == wrong[:5]
    for row in rows:
        assert found[row["file_name"]]["predicted"] == row["predicted"] != row["label"]
        with PIL.Image.open(out / "gallery" / row["thumbnail"]) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) <= 256


def test_no_gallery_is_asked_for_and_none_of_before_stays(tmp_path: Path) -> None:
    write_bytes(tmp_path / "stages" / "evaluate" / "gallery" / "001-of-before.jpg", b"")
    out = run(tmp_path, gallery=0)
    assert [path.name for path in (out / "gallery").iterdir()] == ["mistakes.csv"]


@pytest.mark.parametrize(("classes", "pictures"), [(2, 1), (3, 2), (30, 90)])
def test_small_and_wide_exams_are_written_whole(tmp_path: Path, classes: int, pictures: int) -> None:
    out = run(tmp_path, classes, pictures)
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "plots" / "roc.csv").read_text().startswith("fpr,tpr\n")


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    exam, head_only, fine_tuned, histories = make_exam(tmp_path, 3, 30, pictures_on_disk=False)
    with pytest.raises(UserError, match=r"images/.*no such file; .*dvc repro"):
        write_evaluation(
            tmp_path / "out",
            exam=exam,
            head_only=head_only,
            fine_tuned=fine_tuned,
            params=EvaluateParams(bootstrap=100, gallery=3),
            seed=0,
            histories=histories,
            facts=make_facts(exam.labels),
        )
    assert not (tmp_path / "out").exists()
