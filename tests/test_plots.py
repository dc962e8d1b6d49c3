"""The figures: valid SVG, the same every time, in two versions, and the points behind them."""

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from sklearn import metrics

from exams import NAMES, make_history, make_logits
from headstart import bootstrap, curves, plots
from headstart.calibration import Answers, answer
from headstart.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def make_plots(folder: Path, classes: int, pictures: int = 60) -> dict[str, plots.Plot]:
    history = curves.read_history(make_history(folder / "history.csv", 4))
    tuned, head = (answer(make_logits(pictures, classes, seed=0, scale=scale)) for scale in (2.0, 0.5))
    return plots.plots(head, tuned, NAMES[classes], {"train-head": history, "fine-tune": history})


@pytest.mark.parametrize("classes", [2, 4])
def test_all_figures_are_there_and_are_svg(tmp_path: Path, classes: int) -> None:
    made = make_plots(tmp_path, classes)
    assert set(made) == {
        "confusion", "reliability", "roc", "precision-recall", "curves-train-head", "curves-fine-tune"
    }  # fmt: skip
    for plot in made.values():
        assert len(plot.alt) > 20
        for svg in (plot.light, plot.dark):
            assert ET.fromstring(svg).tag == f"{SVG}svg"
        assert texts(plot.light) == texts(plot.dark)
        for svg, theme in ((plot.light, plots.LIGHT), (plot.dark, plots.DARK)):
            assert set(re.findall(r"#[0-9a-f]{6}\b", svg.decode())) <= set(theme)


def test_two_drawings_are_the_same_bytes_whatever_the_users_matplotlib_settings() -> None:
    import matplotlib

    found = answer(make_logits(60, 3, seed=0))
    one = plots.reliability(found)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 20.0}):
        assert plots.reliability(found) == one
    assert b"<dc:date>" not in one.light


def test_labels_in_any_script_and_with_any_signs_are_drawn_as_they_are() -> None:
    names = ("<b>bold</b> & $x^2$", "日本の犬", "_hidden")
    drawn = texts(plots.confusion(answer(make_logits(60, 3, seed=0)), names).light)
    for name in names:
        assert drawn.count(name) == 2


def test_thirty_classes_stay_legible() -> None:
    plot = plots.confusion(answer(make_logits(400, 30, seed=0)), NAMES[30])
    root = ET.fromstring(plot.light)
    width = float(root.get("width", "").removesuffix("pt"))
    assert width / 30 > 20  # points for each column
    assert set(NAMES[30]) <= set(texts(plot.light))


def test_long_labels_are_shortened_in_the_figure() -> None:
    names = ("x" * 80, "a very long label of many words indeed")
    drawn = texts(plots.confusion(answer(make_logits(60, 2, seed=0)), names).light)
    assert drawn.count("xxxxxxxxxxxxxx…xxxxxxxxx") == 2
    assert drawn.count("a very long la…ds indeed") == 2


def test_one_class_in_the_test_has_no_roc(tmp_path: Path) -> None:
    assert not {"roc", "precision-recall"} & set(make_plots(tmp_path, 2, pictures=1))


def test_roc_of_two_classes_is_scikit_learns() -> None:
    found = answer(make_logits(80, 2, seed=1))
    x, y = curves.roc(found)
    assert metrics.auc(x, y) == pytest.approx(metrics.roc_auc_score(found.labels, found.raw[:, 1]))
    recall, precision = curves.precision_recall(found)
    assert (recall[0], recall[-1]) == (0, 1)
    assert precision[0] == 1


def test_mean_roc_has_nearly_the_mean_area() -> None:
    found = answer(make_logits(400, 4, seed=2))
    area = metrics.roc_auc_score(found.labels, found.raw, multi_class="ovr")
    assert metrics.auc(*curves.roc(found)) == pytest.approx(area, abs=0.01)


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    found = answer(make_logits(250, 3, seed=3))
    bins = curves.calibration_bins(found, found.calibrated)
    assert bins.pictures.sum() == 250
    ece = (np.abs(bins.accuracy - bins.confidence) * bins.pictures).sum() / 250
    assert bootstrap.figures(found, np.ones((1, 250)))["ece_calibrated"][0] == pytest.approx(ece)


def test_reliability_of_a_case_worked_by_hand() -> None:
    # Bins of 1/15: 0.61 and 0.62 share (0.6, 0.667], 1.0 is in the last.
    probabilities = np.array([[0.61, 0.39], [0.38, 0.62], [1.0, 0.0]])
    found = Answers(np.array([0, 0, 0]), probabilities, probabilities, 1.0)
    bins = curves.calibration_bins(found, probabilities)
    assert bins.confidence.tolist() == pytest.approx([0.615, 1.0])
    assert bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.pictures.tolist() == [2, 1]


def test_csv_for_dvc_reads_back() -> None:
    found = answer(make_logits(50, 2, seed=4))
    made = {name: list(csv.DictReader(io.StringIO(text))) for name, text in curves.tables(found, ("a,b", "c")).items()}
    assert [row["actual"] for row in made["confusion.csv"]] == [("a,b", "c")[n] for n in found.labels]
    assert [row["predicted"] for row in made["confusion.csv"]] == [("a,b", "c")[n] for n in found.predicted]
    assert (made["roc.csv"][0]["fpr"], made["roc.csv"][-1]["tpr"]) == ("0.0", "1.0")
    assert sum(int(row["pictures"]) for row in made["reliability.csv"]) == 50
    points = np.array([[float(row[key]) for key in ("recall", "precision")] for row in made["precision-recall.csv"]])
    area = (np.diff(points[:, 0]) * points[1:, 1]).sum()
    assert area == pytest.approx(metrics.average_precision_score(found.labels, found.raw[:, 1]), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected epochs with columns epoch, train_loss"),
        ("epoch,loss\n1,2\n", "expected epochs with columns epoch, train_loss"),
        ("epoch,train_loss,val_loss,val_accuracy,lr\n1,2,3,x,4\n", "could not convert string to float: 'x'"),
    ],
)
def test_a_history_that_is_none_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "history.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=f"history.csv: {words}.*dvc repro"):
        curves.read_history(path)


def test_a_missing_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        curves.read_history(tmp_path / "none.csv")
