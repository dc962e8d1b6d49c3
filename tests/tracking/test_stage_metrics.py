import json
import os
from pathlib import Path

import pytest

from headstart.tracking import stage_metrics


def keys(stage: str, folder: Path) -> dict[str, float]:
    return {point.key: point.value for point in stage_metrics.metric_points(stage, folder)}


def test_history_has_a_step_an_epoch_and_the_summary_comes_last(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,loss,phase\n1,0.5,warm-up\n2,nan,\n")
    (tmp_path / "metrics.json").write_text(json.dumps({"loss": 0.5}))
    os.utime(tmp_path / "history.csv", (2, 2))
    os.utime(tmp_path / "metrics.json", (1, 1))  # as a checkout may leave it
    first, second, summary = stage_metrics.metric_points("train-head", tmp_path)
    assert first == ("train_head/loss", 0.5, 1, 2000)
    assert (second.step, str(second.value)) == (2, "nan")
    assert summary == ("train_head/loss", 0.5, 2, 2001)


def test_nested_metrics_are_flattened_and_nulls_left_out(tmp_path: Path) -> None:
    scores = {"test": {"roc_auc": None, "by_label": {"not (so) good": 1}}, "head_only": {"accuracy": 0.5}}
    (tmp_path / "metrics.json").write_text(json.dumps(scores))
    points = {point.key: point.value for point in stage_metrics.metric_points("evaluate", tmp_path)}
    assert points == {"test/by_label/not _x28_so_x29_ good": 1, "head_only/accuracy": 0.5}


@pytest.mark.parametrize(("count", "many"), [(20, False), (21, True)])
def test_figures_of_many_labels_are_a_table_and_no_metrics(tmp_path: Path, count: int, many: bool) -> None:
    labels = [f"breed {number}" for number in range(count)]
    by_label = {label: {"recall": 0.5, "f1": 0.25} for label in labels}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"accuracy": 0.5, "per_class": by_label}}))
    found = keys("evaluate", tmp_path)
    assert found["test/accuracy"] == 0.5
    assert ("test/per_class/breed 3/recall" in found) == (not many)
    assert len(found) == (1 if many else 1 + 2 * count)
    table = stage_metrics.label_figures("evaluate", tmp_path)
    assert len(table) == (2 * count if many else 0)
    assert not many or table[0] == ("breed 0", ("test", "recall"), 0.5)
    (tmp_path / "metrics.json").write_text(json.dumps({f"label.{label}": 3 for label in labels} | {"pictures": 9}))
    assert len(keys("fetch", tmp_path)) == (1 if many else 1 + count)
    assert not many or stage_metrics.label_figures("fetch", tmp_path)[0] == ("breed 0", ("fetch", "count"), 3)


def test_constants_are_params_and_no_metrics(tmp_path: Path) -> None:
    values = {"best_epoch": 2, "frozen_parameters": 15112, "trained_parameters": 12_084_598}
    (tmp_path / "metrics.json").write_text(json.dumps(values))
    assert keys("fine-tune", tmp_path) == {"fine_tune/best_epoch": 2}
    assert stage_metrics.constant_params("fine-tune", tmp_path) == {
        "network.frozen_parameters": "15112",
        "network.trained_parameters": "12084598",
    }
    assert stage_metrics.constant_params("train-head", tmp_path) == {}


@pytest.mark.parametrize(("best", "kept"), [(0, "head-only"), (1, "fine-tuned"), (None, "")])
def test_the_model_that_fine_tuning_kept(tmp_path: Path, best: int | None, kept: str) -> None:
    assert stage_metrics.kept_model(tmp_path) == ""
    (tmp_path / "metrics.json").write_text(json.dumps({} if best is None else {"best_epoch": best}))
    assert stage_metrics.kept_model(tmp_path) == kept
