import json
import os
from pathlib import Path

import pytest

from headstart.tracking import stage_metrics
from headstart.tracking.per_label import label_table


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


def test_intervals_of_labels_and_figures_of_slices_are_tables_and_no_metrics(tmp_path: Path) -> None:
    """Two labels with intervals would be 18 columns in MLflow's page, and twenty groups 80."""
    of_label = {"recall": 0.5, "recall_low": 0.2, "recall_high": 0.8, "support": 6}
    of_slice = {"accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.9, "pictures": 8}
    test = {"accuracy": 0.5, "accuracy_low": 0.2, "per_class": {"cat": of_label, "dog": of_label}}
    (tmp_path / "metrics.json").write_text(json.dumps({"test": test, "slices": {"group": {"m 1": of_slice}}}))
    expected = {"test/accuracy", "test/accuracy_low"}
    expected |= {f"test/per_class/{label}/{key}" for label in ("cat", "dog") for key in ("recall", "support")}
    assert set(keys("evaluate", tmp_path)) == expected
    labels, slices = (
        [*find("evaluate", tmp_path)] for find in (stage_metrics.label_figures, stage_metrics.slice_figures)
    )
    assert ("cat", ("test", "recall_low"), 0.2) in labels
    assert len(labels) == 8
    assert label_table(slices, "slice") == (
        "slice,accuracy,accuracy_low,accuracy_high,pictures\ngroup: m 1,0.75,0.5,0.9,8\n"
    )


def test_what_int8_costs_is_a_metric_and_the_proof_of_the_fp32_file_is_none(tmp_path: Path) -> None:
    int8 = {"accuracy": 0.5, "accuracy_low": 0.25, "difference": {"accuracy": -0.25}}
    parity = {"pictures": 6, "same_label": 5, "fp32": {"largest_logit_difference": 6e-6}, "int8": int8}
    (tmp_path / "parity.json").write_text(json.dumps(parity))
    assert keys("export", tmp_path) == {
        "export/int8/accuracy": 0.5,
        "export/int8/accuracy_low": 0.25,
        "export/int8/difference/accuracy": -0.25,
        "export/int8/same_label": 5,
    }
    (tmp_path / "parity.json").write_text(json.dumps({"pictures": 6, "same_label": 6}))
    assert keys("export", tmp_path) == {}


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
