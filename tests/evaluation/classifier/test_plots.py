"""A classifier's plots: valid SVG in two versions, the same on every run, labels as they are."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from headstart.evaluation.charts import DARK, LIGHT, Plot
from headstart.evaluation.classifier.plots import classifier_plots, confusion_plot, reliability_plot
from headstart.evaluation.history import read_history
from headstart.metrics.calibration import calibrate_logits
from synthetic_logits import NAMES, make_history, make_logits

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter(f"{SVG}text")]


def make_plots(folder: Path, classes: int, pictures: int = 60) -> dict[str, Plot]:
    history = read_history(make_history(folder / "history.csv", 4))
    fine_tuned, head_only = (calibrate_logits(make_logits(pictures, classes, seed=0, scale=s)) for s in (2.0, 0.5))
    return classifier_plots(head_only, fine_tuned, NAMES[classes], {"train-head": history, "fine-tune": history})


@pytest.mark.parametrize("classes", [2, 4])
def test_all_plots_are_there_and_are_svg(tmp_path: Path, classes: int) -> None:
    plots = make_plots(tmp_path, classes)
    assert set(plots) == {
        "confusion", "reliability", "roc", "precision-recall", "curves-train-head", "curves-fine-tune"
    }  # fmt: skip
    for plot in plots.values():
        assert len(plot.alt) > 20
        for svg in (plot.light, plot.dark):
            assert ET.fromstring(svg).tag == f"{SVG}svg"
        assert texts(plot.light) == texts(plot.dark)
        for svg, theme in ((plot.light, LIGHT), (plot.dark, DARK)):
            assert set(re.findall(r"#[0-9a-f]{6}\b", svg.decode())) <= set(theme)


def test_two_drawings_are_the_same_bytes_whatever_the_users_matplotlib_settings() -> None:
    import matplotlib

    predictions = calibrate_logits(make_logits(60, 3, seed=0))
    plot = reliability_plot(predictions)
    with matplotlib.rc_context({"lines.linewidth": 9.0, "font.size": 20.0}):
        assert reliability_plot(predictions) == plot
    assert b"<dc:date>" not in plot.light


def test_labels_in_any_script_and_with_any_signs_are_drawn_as_they_are() -> None:
    names = ("<b>bold</b> & $x^2$", "日本の犬", "_hidden")
    drawn = texts(confusion_plot(calibrate_logits(make_logits(60, 3, seed=0)), names).light)
    for name in names:
        assert drawn.count(name) == 2


def test_thirty_classes_stay_legible() -> None:
    plot = confusion_plot(calibrate_logits(make_logits(400, 30, seed=0)), NAMES[30])
    root = ET.fromstring(plot.light)
    width = float(root.get("width", "").removesuffix("pt"))
    assert width / 30 > 20  # points for each column
    assert set(NAMES[30]) <= set(texts(plot.light))


def test_long_labels_are_shortened() -> None:
    names = ("x" * 80, "a very long label of many words indeed")
    drawn = texts(confusion_plot(calibrate_logits(make_logits(60, 2, seed=0)), names).light)
    assert drawn.count("xxxxxxxxxxxxxx…xxxxxxxxx") == 2
    assert drawn.count("a very long la…ds indeed") == 2


def test_a_test_set_of_one_class_has_no_roc(tmp_path: Path) -> None:
    assert not {"roc", "precision-recall"} & set(make_plots(tmp_path, 2, pictures=1))
