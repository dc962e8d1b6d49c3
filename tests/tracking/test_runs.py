"""Every test writes to a real SQLite store and reads it back through MlflowClient."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from headstart.params.root import Params
from headstart.tracking import store
from headstart.tracking.recorder import recorded_stage
from headstart.tracking.runs import StageFailure, record_stage
from headstart.tracking.stage_graph import PIPELINE_STAGES
from headstart.tracking.store import MLFLOW_ENVIRONMENT
from headstart.tracking.variant_runs import STAGE_TAG_PREFIX
from tracking import test_stage_results

DVC = Path(__file__).parents[2] / "dvc.yaml"
EPOCHS = {"train-head": 3, "fine-tune": 2}


@pytest.fixture(scope="session")
def created_together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that two pipelines have created at once; their stderr is in *.err.

    Creating MLflow's tables costs seconds, so all other tests work on copies of this one.
    """
    home = tmp_path_factory.mktemp("store")
    code = (
        "import sys; from pathlib import Path; from tracking import test_runs as t\n"
        "t.execute(Path(sys.argv[1]), t.PIPELINE_STAGES, t.make_params(), score=float(sys.argv[2]))"
    )
    folders = [Path(__file__).parents[1], Path(store.__file__).parents[2]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_") and key != "RANK"}
    environment |= {
        "DVC_ROOT": str(home),
        "MLFLOW_EXPERIMENT_NAME": "together",
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    pipelines = []
    for name, score in {"one": "0.1", "two": "0.2"}.items():
        with (home / f"{name}.err").open("w") as err:
            command = [sys.executable, "-W", "ignore", "-c", code, str(home / name), score]
            pipelines.append(subprocess.Popen(command, env=environment | {"DVC_EXP_NAME": name}, stderr=err))
    assert [pipeline.wait(120) for pipeline in pipelines] == [0, 0]
    return home


@pytest.fixture
def root(tmp_path: Path, created_together: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in list(os.environ):
        if variable.startswith(("MLFLOW_", "DVC_", "GIT_")) or variable == "RANK":
            monkeypatch.delenv(variable)
    for variable, value in MLFLOW_ENVIRONMENT.items():  # set here, so undone after the test
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    shutil.copy(created_together / "mlflow.db", tmp_path)
    (tmp_path / "params.yaml").write_text("# as the user wrote it\n")
    return tmp_path


def make_params(lr: float = 0.001, **changes: Any) -> Params:
    return test_stage_results.make_params(train_head={"epochs": 3, "lr": lr}, **changes)


def leave_files(root: Path, name: str, score: float = 0.5) -> None:
    """A stage's files, small."""
    folder = root / "stages" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    metrics: dict[str, Any] = {"val_accuracy": score, "roc_auc": None}
    match name:
        case "fetch":
            metrics = {"pictures": 12, "labels": {"good": 8, "not (so) good": 4}}
            (folder / "annotations.json").write_text("{}")
        case "weights":
            metrics = {}
            facts = {"name": "tiny_net.random", "sha256": "ab" * 32, "licence": None, "mean": [0.5]}
            (folder / "weights.json").write_text(json.dumps(facts))
        case "train-head" | "fine-tune":
            lines = [f"{epoch},{1 / epoch},{0.1 * epoch}," for epoch in range(1, EPOCHS[name] + 1)]
            (folder / "history.csv").write_text("\n".join(["epoch,train_loss,val_accuracy,note", *lines]))
            (folder / "model.safetensors").write_bytes(f"{name} {score}".encode())
        case "evaluate":
            metrics = {"test": {"accuracy": score, "by_label": {"good": 1}}, "head_only": {"accuracy": score - 0.1}}
            (folder / "report.html").write_text("<p>")
            (folder / "plots").mkdir()
            (folder / "plots" / "confusion.svg").write_text("<svg/>")
        case "export":
            (folder / "model.onnx").write_bytes(f"onnx {score}".encode())
            (folder / "model_card.md").write_text("# card")
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))


def execute(root: Path, names: list[str] | tuple[str, ...], params: Params, score: float = 0.5) -> None:
    """Stages as DVC executes them, one after the other."""
    for name in names:
        started_ms = int(time.time() * 1000)
        leave_files(root, name, score)
        record_stage(name, params, root, started_ms)


def all_runs(root: Path, experiment: str = "headstart") -> list[Run]:
    """Oldest first."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    if (found := client.get_experiment_by_name(experiment)) is None:
        return []
    return list(client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))


def stages_in(run: Run) -> list[str]:
    return [name for name in PIPELINE_STAGES if STAGE_TAG_PREFIX + name in run.data.tags]


def files_in(root: Path, run: Run) -> list[str]:
    folder = root / "mlartifacts" / run.info.run_id / "artifacts"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_complete_pipeline_is_one_complete_run(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    execute(root, PIPELINE_STAGES, make_params(), score=0.75)

    (run,) = all_runs(root)
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("tiny_net ")
    assert stages_in(run) == list(PIPELINE_STAGES)
    metrics = run.data.metrics
    assert metrics["fetch/pictures"] == 12
    assert metrics["fetch/labels/not _x28_so_x29_ good"] == 4
    assert metrics["train_head/val_accuracy"] == 0.75  # the stage's summary, not its last epoch
    assert metrics["test/accuracy"] == 0.75
    assert metrics["head_only/accuracy"] == 0.65
    assert not [key for key in metrics if "roc_auc" in key or "note" in key]  # a null, an empty cell
    assert run.data.params["train_head.lr"] == "0.001"
    assert run.data.params["weights.name"] == "tiny_net.random"
    hike = json.loads(run.data.params["fetch.sources"])[1]
    assert (hike["folder"], hike["split"]) == ("data/hike", "test")
    assert run.data.tags["headstart.progress"] == "export done"
    assert run.inputs is not None
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.name == "cells+hike"
    assert '"pictures": 12' in str(dataset.profile)
    assert files_in(root, run) == [
        "evaluate/plots/confusion.svg",
        "evaluate/report.html",
        "export/model_card.md",
        "fine-tune/history.csv",
        "params.yaml",
        "train-head/history.csv",
    ], "the weights lie in the logged model"
    history = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(
        run.info.run_id, "train_head/train_loss"
    )
    assert [point.step for point in history] == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_edited_params_start_a_run_with_the_stages_that_dvc_did_not_execute(root: Path) -> None:
    execute(root, PIPELINE_STAGES, make_params(), score=0.5)
    execute(root, ["train-head"], make_params(lr=0.01), score=0.6)

    first, second = all_runs(root)
    # Fine-tune, evaluate and export of the first variant are still in stages/; they are not part of the second.
    assert stages_in(second) == ["fetch", "weights", "split", "augment", "train-head"]
    assert "test/accuracy" not in second.data.metrics
    assert second.data.metrics["fetch/pictures"] == 12
    assert second.data.params["train_head.lr"] == "0.01"
    assert first.data.tags["headstart.variant"] != second.data.tags["headstart.variant"]

    execute(root, ["fine-tune", "evaluate", "export"], make_params(lr=0.01), score=0.6)
    first, second = all_runs(root)
    assert stages_in(second) == list(PIPELINE_STAGES)
    assert (first.data.metrics["test/accuracy"], second.data.metrics["test/accuracy"]) == (0.5, 0.6)


def test_comments_and_tracking_settings_make_no_variant(root: Path) -> None:
    execute(root, ["fetch"], make_params())
    (root / "params.yaml").write_text("# another comment\n")
    execute(root, ["split"], make_params(tracking={"uri": f"sqlite:///{root / 'mlflow.db'}"}))
    assert len(all_runs(root)) == 1
    (root / "data.dvc").write_text("outs: [{md5: changed}]")
    execute(root, ["augment"], make_params())
    assert [stages_in(run) for run in all_runs(root)] == [["fetch", "split"], ["fetch", "split", "augment"]]


def test_other_results_of_the_same_variant_start_a_complete_run(root: Path) -> None:
    execute(root, PIPELINE_STAGES, make_params(), score=0.5)
    execute(root, ["fine-tune", "evaluate", "export"], make_params(), score=0.9)

    first, second = all_runs(root)
    assert stages_in(second) == list(PIPELINE_STAGES)
    assert (first.data.metrics["test/accuracy"], second.data.metrics["test/accuracy"]) == (0.5, 0.9)
    assert second.info.run_name == f"{first.info.run_name} (2)"


def test_equal_results_add_nothing(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    execute(root, PIPELINE_STAGES, make_params())
    (before,) = all_runs(root)
    execute(root, ["train-head"], make_params())  # say, after a change of comments in its code
    (after,) = all_runs(root)
    assert after.to_dictionary() == before.to_dictionary()
    err = capfd.readouterr().err
    assert err == f"MLflow: run '{before.info.run_name}' already holds these results of train-head\n"


def test_an_edit_without_effect_has_a_complete_row_of_its_own(root: Path) -> None:
    shutil.copy(DVC, root)
    execute(root, PIPELINE_STAGES, make_params())
    edited = make_params(fetch={"sources": [{"table": "data/cells.csv"}], "max_failed": 5})
    execute(root, ["fetch"], edited)  # the same pictures: DVC skips the downstream stages
    first, second = all_runs(root)
    assert second.info.status == "FINISHED"
    assert stages_in(second) == list(PIPELINE_STAGES)
    assert second.data.metrics == first.data.metrics
    assert second.data.params["fetch.max_failed"] == "5"
    assert second.data.tags["headstart.replayed"] == "weights, split, augment, train-head, fine-tune, evaluate, export"
    execute(root, ["fetch"], edited)
    assert len(all_runs(root)) == 2


def test_a_changed_param_whose_training_gives_the_same_bits_is_a_row_too(root: Path) -> None:
    shutil.copy(DVC, root)
    execute(root, PIPELINE_STAGES, make_params())
    edited = make_params(fine_tune={"epochs": 2, "lr": 0.0001, "freeze_depth": 1, "patience": 50})
    execute(root, ["fine-tune"], edited)
    second = all_runs(root)[1]
    assert second.info.status == "RUNNING", "evaluate reads fine_tune, so DVC runs it"
    assert stages_in(second) == ["fetch", "weights", "split", "augment", "train-head", "fine-tune"]
    execute(root, ["evaluate"], edited)  # and the same metrics: DVC skips export
    _, second = all_runs(root)
    assert second.info.status == "FINISHED"
    assert second.data.metrics["test/accuracy"] == 0.5
    assert second.info.run_name == "patience 50"


def test_stages_that_an_edit_touches_too_are_not_taken_from_the_run_before(root: Path) -> None:
    shutil.copy(DVC, root)
    execute(root, PIPELINE_STAGES, make_params())
    edited = make_params(0.5, fetch={"sources": [{"table": "data/cells.csv"}], "max_failed": 5})
    execute(root, ["fetch"], edited)
    assert stages_in(all_runs(root)[1]) == ["fetch", "weights", "split", "augment"]
    execute(root, ["train-head", "fine-tune", "evaluate", "export"], edited, score=0.9)
    _, second = all_runs(root)
    assert second.info.status == "FINISHED"
    assert second.data.metrics["test/accuracy"] == 0.9


def test_a_report_of_another_template_reaches_the_run(root: Path) -> None:
    execute(root, PIPELINE_STAGES, make_params())
    leave_files(root, "evaluate")
    (root / "stages/evaluate/report.html").write_text("<p>of another template")
    record_stage("evaluate", make_params(), root, 0)
    (run,) = all_runs(root)
    report = root / "mlartifacts" / run.info.run_id / "artifacts/evaluate/report.html"
    assert report.read_text() == "<p>of another template"
    assert run.info.status == "FINISHED"
    history = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(run.info.run_id, "test/accuracy")
    assert len(history) == 1


def test_a_report_of_other_code_brings_the_commit_and_the_difference(root: Path) -> None:
    git = commit(root, "params.yaml")
    execute(root, PIPELINE_STAGES, make_params())
    first = git("rev-parse", "HEAD")
    (root / "params.yaml").write_text("# edited\n")
    execute(root, ["train-head"], make_params())
    (run,) = all_runs(root)
    assert run.data.tags["headstart.dirty"] == "false", "the same files: the run is of the commit"
    leave_files(root, "evaluate")
    (root / "stages/evaluate/report.html").write_text("<p>of another template")
    record_stage("evaluate", make_params(), root, 0)
    (run,) = all_runs(root)
    assert run.data.tags["headstart.dirty"] == "true"
    assert run.data.tags["mlflow.source.git.commit"] == first
    assert run.info.status == "FINISHED"
    assert "+# edited" in (root / "mlartifacts" / run.info.run_id / "artifacts/diff.patch").read_text()


def test_another_experiment_gets_a_complete_row_from_the_last_stage(root: Path) -> None:
    execute(root, PIPELINE_STAGES, make_params())
    execute(root, ["export"], make_params(tracking={"experiment": "second"}))  # as dvc.yaml has it run
    (run,) = all_runs(root, "second")
    assert run.info.status == "FINISHED"
    assert stages_in(run) == list(PIPELINE_STAGES)


def test_a_row_is_finished_when_the_results_of_all_stages_are_in_it(root: Path) -> None:
    execute(root, PIPELINE_STAGES[:-1], make_params())
    assert all_runs(root)[0].info.status == "RUNNING"
    execute(root, ["train-head"], make_params(0.5), score=0.6)  # DVC does not come back to the first by itself
    first, second = all_runs(root)
    assert (first.info.status, second.info.status) == ("KILLED", "RUNNING")
    assert first.data.tags["headstart.progress"] == "left unfinished: a later run began"
    leave_files(root, "train-head")
    execute(root, ["export"], make_params())
    assert [run.info.status for run in all_runs(root)] == ["FINISHED", "RUNNING"]


def test_experiments_side_by_side_leave_each_other_running(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, score in {"one": 0.1, "two": 0.2}.items():
        monkeypatch.setenv("DVC_EXP_NAME", name)
        execute(root, ["fetch", "split"], make_params(), score=score)
    assert [run.info.status for run in all_runs(root)] == ["RUNNING", "RUNNING"]


def test_names_say_what_differs_from_the_first_run(root: Path) -> None:
    execute(root, ["train-head"], make_params(), score=0.1)
    tuned = {"epochs": 2, "lr": 0.003, "freeze_depth": 8}
    execute(root, ["fine-tune"], make_params(fine_tune=tuned), score=0.2)
    execute(root, ["fine-tune"], make_params(0.01, fine_tune=tuned), score=0.3)
    (root / "data.dvc").write_text("outs: [{md5: changed}]")
    execute(root, ["fetch"], make_params(), score=0.4)
    names = [run.info.run_name for run in all_runs(root)]
    assert names[1:3] == ["freeze 8, lr 3e-3", "freeze 8, lr 3e-3, head lr 0.01"]
    assert names[3].startswith("other data ")


def test_a_run_holds_what_it_was_made_with(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    address = "http://user:pass@word@host"
    (root / "params.yaml").write_text(f"tracking: {{uri: {address}}}\n")
    (root / "data.dvc").write_text("outs: [{md5: of-data.dvc, path: data}]")
    lock = {"fetch": {"deps": [{"path": "data", "md5": "of-the-fetch"}]}, "split": {"cmd": "of an earlier run"}}
    leave_files(root, "fetch")
    record_stage("fetch", make_params(), root, 0, environment={"torch": "2.9.0", "precision": "bf16"})
    (run,) = all_runs(root)
    assert run.data.tags["headstart.data.md5"] == "of-data.dvc"
    (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": lock}))
    leave_files(root, "split")
    record_stage("split", make_params(), root, 0, environment={"torch": "2.9.1", "precision": "bf16"})
    (run,) = all_runs(root)
    tags = run.data.tags
    assert tags["headstart.data.md5"] == "of-the-fetch"
    assert tags["headstart.env.torch"] == "2.9.0; split: 2.9.1"
    assert tags["headstart.env.precision"] == "bf16"
    assert tags["headstart.dirty"] == "unknown"
    folder = root / "mlartifacts" / run.info.run_id / "artifacts"
    assert files_in(root, run) == ["data.dvc", "dvc.lock", "params.yaml"]
    assert "of-the-fetch" in (folder / "dvc.lock").read_text()
    assert "of an earlier run" not in (folder / "dvc.lock").read_text()
    assert (folder / "params.yaml").read_text() == "tracking: {uri: http://…@host}\n"


def commit(root: Path, *names: str) -> Callable[..., str]:
    """A repository with these files in its first commit; returns `git` for it."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", *names)
    git("commit", "--quiet", "--message", "first")
    return git


def test_a_difference_from_the_commit_is_kept(root: Path) -> None:
    git = commit(root, "params.yaml")
    execute(root, ["fetch"], make_params())
    (run,) = all_runs(root)
    assert run.data.tags["headstart.dirty"] == "false"
    assert "diff.patch" not in files_in(root, run)
    (root / "params.yaml").write_text("# edited\n")
    execute(root, ["split"], make_params())
    (run,) = all_runs(root)
    assert run.data.tags["headstart.dirty"] == "true"
    patch = root / "mlartifacts" / run.info.run_id / "artifacts/diff.patch"
    assert "+# edited" in patch.read_text()
    git("commit", "--quiet", "--all", "--message", "second")
    execute(root, ["augment"], make_params())
    assert all_runs(root)[0].data.tags["headstart.dirty"] == "true", "of its fetch and its split"


def test_many_labels_are_one_table(root: Path) -> None:
    labels = [f"breed {number:03d}" for number in range(120)]
    leave_files(root, "fetch")
    counts = {"pictures": 360} | {f"label.{label}": 3 for label in labels}
    (root / "stages/fetch/metrics.json").write_text(json.dumps(counts))
    for name in PIPELINE_STAGES[1:]:
        leave_files(root, name)
    by_label = {label: {"recall": 0.5} for label in labels}
    figures = {"test": {"accuracy": 0.5, "per_class": by_label}, "head_only": {"accuracy": 0.5, "per_class": by_label}}
    (root / "stages/evaluate/metrics.json").write_text(json.dumps(figures))
    record_stage("export", make_params(), root, 0)
    (run,) = all_runs(root)
    assert not any("breed" in key for key in run.data.metrics)
    assert (run.data.metrics["fetch/pictures"], run.data.metrics["test/accuracy"]) == (360, 0.5)
    table = (root / "mlartifacts" / run.info.run_id / "artifacts/per_label.csv").read_text().splitlines()
    assert table[0] == "label,fetch/count,test/recall,head_only/recall"
    assert table[4] == "breed 003,3,0.5,0.5"
    assert len(table) == 121


def test_the_model_that_fine_tuning_kept_is_a_tag(root: Path) -> None:
    leave_files(root, "fine-tune")
    (root / "stages/fine-tune/metrics.json").write_text('{"best_epoch": 0, "frozen_parameters": 7}')
    record_stage("fine-tune", make_params(), root, 0)
    (run,) = all_runs(root)
    assert run.data.tags["headstart.kept"] == "head-only"
    assert run.data.params["network.frozen_parameters"] == "7"
    assert "fine_tune/frozen_parameters" not in run.data.metrics


def test_a_fact_of_another_machine_begins_a_run_of_its_own(root: Path) -> None:
    """MLflow's params cannot change."""
    execute(root, ["weights"], make_params())
    facts = json.dumps({"name": "other.weights"})
    (root / "stages/weights/weights.json").write_text(facts)
    leave_files(root, "fetch")
    record_stage("train-head", make_params(), root, 0)
    assert [run.data.params["weights.name"] for run in all_runs(root)] == ["tiny_net.random", "other.weights"]


def test_run_whose_upstream_stages_have_changed_is_not_resumed(root: Path) -> None:
    execute(root, ["fetch", "weights", "split", "augment", "train-head"], make_params(), score=0.5)
    execute(root, ["train-head"], make_params(fine_tune={"epochs": 9, "lr": 1, "freeze_depth": 0}), score=0.8)
    execute(root, ["fine-tune"], make_params(), score=0.8)

    first, _, third = all_runs(root)
    assert "fine-tune" not in stages_in(first)
    assert third.data.metrics["train_head/val_accuracy"] == 0.8


def test_weights_may_run_before_or_after_the_pictures(root: Path) -> None:
    leave_files(root, "weights")  # of another backbone, say
    execute(root, ["fetch", "split", "augment"], make_params())
    assert stages_in(all_runs(root)[0]) == ["fetch", "split", "augment"]
    execute(root, ["weights", "train-head"], make_params())
    (run,) = all_runs(root)
    assert stages_in(run) == ["fetch", "weights", "split", "augment", "train-head"]


def test_single_stage_makes_a_complete_run(root: Path) -> None:
    for name in PIPELINE_STAGES[:-1]:
        leave_files(root, name)
    execute(root, ["export"], make_params())
    (run,) = all_runs(root)
    assert stages_in(run) == list(PIPELINE_STAGES)


def test_repeated_failed_stage_resumes_its_run(root: Path) -> None:
    execute(root, ["fetch", "weights", "split", "augment", "train-head"], make_params())
    record_stage("fine-tune", make_params(), root, 0, StageFailure("ValueError: loss is nan"))
    (run,) = all_runs(root)
    assert run.info.status == "FAILED"
    assert run.data.tags["headstart.progress"] == "fine-tune failed: ValueError: loss is nan"

    execute(root, ["fine-tune", "evaluate", "export"], make_params())
    (run,) = all_runs(root)
    assert run.info.status == "FINISHED"
    assert stages_in(run) == list(PIPELINE_STAGES)


def test_user_error_before_any_result_adds_no_row(root: Path) -> None:
    failure = StageFailure("UserError: data/pets: no such folder", user_error=True)
    record_stage("fetch", make_params(), root, 0, failure)
    assert not all_runs(root)
    execute(root, ["fetch", "weights", "split", "augment", "train-head"], make_params())
    record_stage("fine-tune", make_params(lr=9.0), root, 0, StageFailure("UserError: loss", user_error=True))
    # A learning rate that is too high is a result; the run before it has no export.
    assert [run.info.status for run in all_runs(root)] == ["KILLED", "FAILED"]


def test_failure_leaves_a_complete_run_alone(root: Path) -> None:
    execute(root, PIPELINE_STAGES, make_params())
    now = int(time.time() * 1000)
    record_stage("evaluate", make_params(), root, now, StageFailure("KeyboardInterrupt: ", interrupted=True))
    first, second = all_runs(root)
    assert first.info.status == "FINISHED"
    assert second.info.status == "KILLED"
    assert stages_in(second) == ["fetch", "weights", "split", "augment", "train-head", "fine-tune"]


def test_experiment_names_its_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(root, ["fetch", "split"], make_params(), score=0.1)
    monkeypatch.setenv("DVC_EXP_NAME", "gaudy-sofa")
    execute(root, ["split"], make_params(), score=0.2)
    # The same name with other params, as after `dvc exp run --force --name`: MLflow's params cannot change.
    execute(root, ["split"], make_params(lr=0.5), score=0.3)
    _, second, third = all_runs(root)
    assert second.info.run_name == second.data.tags["headstart.variant"] == "gaudy-sofa"
    assert third.data.tags["headstart.variant"] == "gaudy-sofa"
    assert third.data.params["train_head.lr"] == "0.5"


def test_copy_under_dvc_tmp_records_at_the_repository_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = root / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(root))
    execute(copy, ["train-head"], make_params())
    (run,) = all_runs(root)
    assert files_in(root, run) == ["train-head/history.csv"]
    assert not (copy / "mlflow.db").exists()


def test_two_pipelines_at_once_create_a_database_and_two_complete_runs(created_together: Path) -> None:
    assert not any("warning" in path.read_text() for path in created_together.glob("*.err"))
    runs = all_runs(created_together, "together")
    assert {run.info.run_name for run in runs} == {"one", "two"}
    assert [stages_in(run) for run in runs] == [list(PIPELINE_STAGES)] * 2
    files = {path.name for path in created_together.iterdir()}
    assert files == {"mlflow.db", "mlartifacts", "one", "one.err", "two", "two.err"}


def test_two_workspaces_never_share_a_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    here, there = root / "here", root / "there"
    for name in ("fetch", "split", "augment"):
        execute(here, [name], make_params(), score=0.1)
        execute(there, [name], make_params(), score=0.1)
    assert [stages_in(run) for run in all_runs(root)] == [["fetch", "split", "augment"]] * 2


def test_environment_wins_over_params(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")  # relative to the repository, not to the cwd
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    execute(root, ["fetch", "split"], make_params(tracking={"uri": "http://127.0.0.1:1", "experiment": "unused"}))
    (run,) = all_runs(root, "from the environment")
    assert stages_in(run) == ["fetch", "split"]
    assert not all_runs(root)


def test_partly_recorded_stage_is_completed_later(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", no_space)
        execute(root, ["train-head"], make_params())
    assert capfd.readouterr().err == (
        "warning: MLflow did not record train-head: [Errno 28] No space left on device; the stage's own files are "
        "complete, and the next stage records them too\n"
    )
    assert stages_in(all_runs(root)[0]) == []

    execute(root, ["fine-tune"], make_params())
    (run,) = all_runs(root)
    assert stages_in(run) == ["train-head", "fine-tune"]
    history = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(
        run.info.run_id, "train_head/train_loss"
    )
    assert [point.step for point in history] == [1, 2, 3]  # none of them twice


def test_long_values_and_histories_fit(root: Path) -> None:
    sources = [{"folder": f"data/class-{index:03d}"} for index in range(100)]
    leave_files(root, "train-head")
    rows = [f"{epoch},0.5,0.5" for epoch in range(1100)]
    (root / "stages/train-head/history.csv").write_text("\n".join(["epoch,train_loss,lr", *rows]))
    execute(root, ["fine-tune"], make_params(fetch={"sources": sources}))
    (run,) = all_runs(root)
    assert run.data.params["fetch.sources"].endswith("…")
    history = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(run.info.run_id, "train_head/lr")
    assert len(history) == 1100


def test_only_rank_zero_records(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with recorded_stage("fetch", make_params(), root):
        leave_files(root, "fetch")
    assert not all_runs(root)
    monkeypatch.setenv("RANK", "0")
    with recorded_stage("fetch", make_params(), root):
        pass
    (run,) = all_runs(root)
    assert stages_in(run) == ["fetch"]
    assert run.data.params["train_head.lr"] == "0.001"


def test_server_that_is_down_costs_one_warning(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    execute(root, ["fetch"], make_params(tracking={"uri": "http://user:secret@127.0.0.1:1"}))
    assert time.monotonic() - start < 20
    out, err = capfd.readouterr()
    assert out == ""
    begin = "warning: MLflow did not record fetch: tracking.uri: http://…@127.0.0.1:1: Failed to establish a new connec"
    assert err.startswith(begin)
    assert err.endswith("; the stage's own files are complete, and the next stage records them too\n")
    assert err.count("\n") == 1
    assert "secret" not in err
    assert (root / "stages/fetch/metrics.json").exists()

    execute(root, ["split"], make_params())  # it is up again: the next stage records the lost one too
    assert stages_in(all_runs(root)[0]) == ["fetch", "split"]


def test_after_the_last_stage_the_warning_has_the_command_that_records_all(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    execute(root, PIPELINE_STAGES[:-1], make_params())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    execute(root, ["export"], make_params())
    err = capfd.readouterr().err
    assert err.startswith("warning: MLflow did not record export: MLFLOW_TRACKING_URI: http://127.0.0.1:1: Failed to ")
    assert err.endswith("; once that works, `dvc repro -f -s export` records all stages\n")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    execute(root, ["export"], make_params())  # what that command runs
    assert [run.info.status for run in all_runs(root)] == ["FINISHED"]


@pytest.mark.parametrize("problem", ["locked", "damaged", "a folder"])
def test_broken_database_costs_one_warning(root: Path, problem: str, capfd: pytest.CaptureFixture[str]) -> None:
    database = root / "mlflow.db"
    other_connection = sqlite3.connect(database, isolation_level=None)
    match problem:
        case "locked":
            other_connection.execute("BEGIN EXCLUSIVE")
        case "damaged":
            database.write_bytes(b"no database at all" * 1000)
        case "a folder":
            database.unlink()
            database.mkdir()
    execute(root, ["fetch"], make_params())
    other_connection.close()
    out, err = capfd.readouterr()
    assert out == ""
    reason = {"locked": "database is locked; ", "damaged": "file is not a database; ", "a folder": ""}[problem]
    assert err.startswith(f"warning: MLflow did not record fetch: {reason}")
    assert err.count("\n") == 1


def test_exception_passes_through_when_recording_fails_too(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    params = make_params(tracking={"uri": "nonsense://"})
    with pytest.raises(ValueError, match="the stage's own"), recorded_stage("fetch", params, root):
        raise ValueError("the stage's own")
    assert capfd.readouterr().err.count("\n") == 1


def test_interrupted_stage_is_marked_as_killed(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt), recorded_stage("fetch", make_params(), root):
        raise KeyboardInterrupt
    (run,) = all_runs(root)
    assert run.info.status == "KILLED"
    assert run.data.tags["headstart.progress"] == "fetch failed: KeyboardInterrupt:"


def test_killed_stage_records_nothing(root: Path) -> None:
    """The second process reads the end of its input, and ends."""
    code = (
        "import os, pathlib, params_of_test as p\nfrom headstart.tracking.recorder import recorded_stage\n"
        "with recorded_stage('fetch', p.params, pathlib.Path.cwd()):\n    os.kill(os.getpid(), 9)"
    )
    params = make_params().model_dump_json(by_alias=True)
    (root / "params_of_test.py").write_text(
        f"from headstart.params.root import Params\nparams = Params.model_validate_json({params!r})"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True, timeout=60)
    assert killed.returncode == -9
    assert killed.stderr == ""
    assert not all_runs(root)


def test_second_process_that_fails_is_one_warning(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with recorded_stage("fetch", make_params(), root):
        pass
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with recorded_stage("fetch", make_params(), root):
        pass
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("warning: MLflow did not record fetch: its process ended early; the stage's own files")
    assert lines[1].startswith("warning: MLflow cannot be started: ")
    assert len(lines) == 2
