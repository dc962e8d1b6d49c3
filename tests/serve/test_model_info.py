import json
import shutil
from pathlib import Path

import tiny
from conftest import Project
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info


def test_metrics_of_the_fp32_model_have_a_note_beside_int8(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root / "stages", tmp_path / "stages")
    path = tmp_path / "stages/export/parity.json"
    for after, change in ((0.747, "lost 0.003"), (0.76, "gained 0.010")):
        int8 = {"accuracy": after, "accuracy_fp32": 0.75, "bytes": 1, "bytes_fp32": 4, "calibrated_on": 12}
        path.write_text(json.dumps(tiny.read_json(path) | {"int8": int8}))
        notes = {metric.name: metric.note for metric in load_model_info(path.parent, []).metrics}
        assert notes == {
            "accuracy": f"of the fp32 model; int8 {change} on the same pictures",
            "balanced accuracy": "of the fp32 model",
        }


def test_a_model_without_an_evaluation_has_no_metrics(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in ("model.onnx", "labels.json"):
        (folder / name).write_bytes((project.root / "stages/export" / name).read_bytes())
    info = load_model_info(folder, find_examples(folder))
    assert (info.labels, info.metrics, info.examples) == (["blue", "red"], [], [])
    assert (info.confusion, info.card) == ({}, "")
