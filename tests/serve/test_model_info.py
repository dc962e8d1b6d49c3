import json
import shutil
from pathlib import Path

import tiny
from conftest import Project
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info


def test_the_figures_beside_int8_are_its_own_where_it_was_measured(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "stages", tmp_path / "stages")
    path = tmp_path / "stages/export/parity.json"
    int8 = {"accuracy": 0.5, "accuracy_low": 0.25, "accuracy_high": 0.625, "accuracy_fp32": 0.75, "bytes": 1}
    path.write_text(json.dumps(tiny.read_json(path) | {"int8": int8}))
    accuracy, balanced = load_model_info(path.parent, []).metrics
    assert (accuracy.name, accuracy.value, accuracy.low, accuracy.high) == ("accuracy", 0.5, 0.25, 0.625)
    assert accuracy.note == "fp32: 0.750"
    assert (balanced.name, balanced.note) == ("balanced accuracy", "of the fp32 model")


def test_a_metric_without_an_interval_may_be_anything(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "stages", tmp_path / "stages")
    path = tmp_path / "stages/evaluate/metrics.json"
    path.write_text(json.dumps({"test": {"accuracy": 0.5, "accuracy_note": "no interval: one unit shows no spread"}}))
    (accuracy,) = load_model_info(tmp_path / "stages/export", []).metrics
    assert (accuracy.value, accuracy.low, accuracy.high, accuracy.note) == (0.5, 0, 1, "")


def test_a_model_without_an_evaluation_has_no_metrics(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in ("model.onnx", "labels.json"):
        (folder / name).write_bytes((project.root / "stages/export" / name).read_bytes())
    info = load_model_info(folder, find_examples(folder))
    assert (info.labels, info.metrics, info.examples) == (["blue", "red"], [], [])
    assert (info.confusion, info.card) == ({}, "")
