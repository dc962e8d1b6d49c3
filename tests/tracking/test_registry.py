"""The exported model in MLflow's registry: logged, registered, champion or not, and served by MLflow over HTTP."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import pyfunc
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

import tiny
from conftest import Project
from headstart.base.manifest import Manifest, write_manifest
from headstart.export.predictor import Predictor
from headstart.export.saved_predictions import SavedPredictions, read_predictions, write_predictions
from headstart.tracking import registry
from headstart.tracking.runs import record_stage
from headstart.tracking.store import MLFLOW_ENVIRONMENT
from headstart.tracking.variant_runs import STAGE_TAG_PREFIX
from test_dvc import PACKAGE, closure, file_of

NAME = "cells"


@pytest.fixture(scope="module")
def exported(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny project whose export has been recorded, without registering it."""
    home = tmp_path_factory.mktemp("registry") / "home"
    shutil.copytree(project.root, home)
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)
        record_stage("export", tiny.make_params(), home, 1)
    return home


@pytest.fixture
def home(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database and the stages are the test's own; mlartifacts is shared."""
    clean(monkeypatch)
    shutil.copy(exported / "mlflow.db", tmp_path)
    shutil.copytree(exported / "stages", tmp_path / "stages")
    return tmp_path


def clean(patch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("MLFLOW_", "DVC_", "GIT_")) or variable == "RANK":
            patch.delenv(variable)
    for variable, value in MLFLOW_ENVIRONMENT.items():
        patch.setenv(variable, value)
    patch.setattr("sys.path", [*sys.path])  # MLflow puts a loaded model's own code first


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def export(home: Path, change: str = "", evaluate: dict[str, Any] | None = None, **params: Any) -> None:
    """As if export had run again, after an evaluation whose results differ by `change`."""
    (home / "stages/evaluate/metrics.json").write_text(json.dumps({"test": {"accuracy": len(change)}}))
    params = {"evaluate": evaluate or {}, "export": {"register": NAME, **params}}
    record_stage("export", tiny.make_params(**params), home, time.time_ns() // 1_000_000)


def leave_predictions(home: Path, *, correct: bool, test_set: str = "", known: int = 99) -> None:
    """Test predictions that are all correct, or all wrong; for `known` of the pictures, and for as many others."""
    saved = read_predictions(home / "stages/export/answers.json")
    test = tiny.manifest(home, "split", "test")
    rows = {
        (image.sha256 if number < known else f"another {number}"): tuple(
            0.9 if (image.label == label) == correct else 0.1 for label in saved.labels
        )
        for number, image in enumerate(test.images)
    }
    write_predictions(
        SavedPredictions(test_set=test_set or saved.test_set, labels=saved.labels, probabilities=rows),
        home / "stages/export",
    )


def all_runs(home: Path) -> list[Run]:
    """Oldest first."""
    (experiment,) = client(home).search_experiments(filter_string="name = 'headstart'")
    return list(client(home).search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def champion(home: Path) -> str:
    return str(client(home).get_registered_model(NAME).aliases["champion"])


def logged(home: Path) -> Path:
    """The folder of the only logged model."""
    (model,) = client(home).search_logged_models([all_runs(home)[0].info.experiment_id])
    assert model.status == "READY"
    return Path(model.artifact_location.removeprefix("file://"))


def test_a_run_has_one_logged_model(home: Path) -> None:
    (run,) = all_runs(home)
    assert "headstart.registered" not in run.data.tags
    assert not client(home).search_registered_models()
    folder = logged(home)
    assert run.outputs is not None
    assert [output.model_id for output in run.outputs.model_outputs] == [folder.parent.name]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".json", ".md", ".onnx", ".py", ".txt", ".yaml"}, "nothing pickled"
    requirements = [f"{package}=={version(package)}" for package in registry.SERVING_PACKAGES]
    assert (folder / "requirements.txt").read_text().split() == requirements
    assert not {"torch", "timm"} & set(registry.SERVING_PACKAGES)
    code = folder / "code/headstart"
    assert {path.relative_to(code).with_suffix("").as_posix() for path in code.rglob("*.py")} == set(
        registry.BUNDLED_MODULES
    )


def test_the_bundled_modules_are_all_that_it_imports() -> None:
    modules = {"headstart.tracking", *closure("headstart.tracking.pyfunc", outside=())}
    assert {file_of(module) for module in modules} == {PACKAGE / f"{name}.py" for name in registry.BUNDLED_MODULES}


def test_bytes_base64_and_paths_give_the_predictions_of_headstart_predict(home: Path, project: Project) -> None:
    model = pyfunc.load_model(str(logged(home)))
    paths = [project.root / image.file_name for image in tiny.manifest(home, "split", "test").images[:2]]
    expected = list(Predictor(project.root / "stages/export").predict_files(paths))
    data = paths[0].read_bytes()
    text = base64.b64encode(data).decode()
    rows = model.predict(pd.DataFrame({"image": [data, text, f"data:image/png;base64,{text}", str(paths[0])]}))
    for row in [*rows, *model.predict(pd.DataFrame({"image": [str(paths[0])]}))]:
        assert row["probabilities"] == pytest.approx(expected[0].probabilities)
        assert (row["label"], row["probability"]) == (expected[0].label, max(row["probabilities"].values()))
        assert (row["answer"], row["unknown"]) == (expected[0].answer, expected[0].unknown)
        assert row["labels_in_set"] == list(expected[0].labels_in_set)
        assert row["strangeness"] == pytest.approx(expected[0].strangeness, abs=1e-6)
    (other,) = model.predict(pd.DataFrame({"image": [paths[1].read_bytes()]}))
    assert other["probabilities"] == pytest.approx(expected[1].probabilities)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("gone.png", "picture 1: neither base64 nor a file that can be read: 'gone.png'"),
        ("größe.png", "picture 1: neither base64 nor a file that can be read: 'größe.png'"),
        (base64.b64encode(b"no picture".ljust(3072)).decode(), "picture 1: not a picture"),  # as long as a path may be
        (base64.b64encode(b"no picture").decode(), "picture 1: not a picture"),
        (b"", "picture 1: an empty file"),
        (7, "picture 1: expected bytes, base64 or a path, not int"),
    ],
)
def test_an_undecodable_picture_is_an_error_with_its_number(
    home: Path, project: Project, picture: object, message: str
) -> None:
    model = pyfunc.load_model(str(logged(home)))
    good = project.root / tiny.manifest(home, "split", "test").images[0].file_name
    with pytest.raises(ValueError, match=message):
        model.predict(pd.DataFrame({"image": [good.read_bytes(), picture]}))


def test_the_signature_has_the_inputs_and_outputs(home: Path) -> None:
    model = pyfunc.load_model(str(logged(home)))
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["image"]
    (row,) = model.predict(model.input_example)
    names = ["label", "probability", "probabilities", "answer", "labels_in_set", "unknown", "strangeness"]
    assert signature.outputs.input_names() == list(row) == names
    required = [column.required for column in signature.outputs]
    assert required == [True] * 6 + [False], "an older model has no strangeness"


def test_a_name_given_later_registers_the_existing_run(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for register in ("", NAME, NAME):
        record_stage("export", tiny.make_params(export={"register": register}), home, 2)
    _, run = all_runs(home)  # the first is of another folder
    assert run.data.tags["headstart.registered"] == "cells version 1"
    assert run.data.tags["headstart.champion"] == "is the champion: there was none before"
    assert champion(home) == "1"
    lines = [line for line in capfd.readouterr().err.splitlines() if "already holds" not in line]
    assert lines == [
        "MLflow: cells version 1 is the champion: there was none before",
        "MLflow: cells version 1 is the champion already",
    ]
    assert run.outputs is not None
    tag = client(home).get_logged_model(run.outputs.model_outputs[0].model_id).tags[registry.VERSIONS_TAG]
    assert json.loads(tag) == [{"name": NAME, "version": 1}]


def test_the_better_one_becomes_champion_and_no_other(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    leave_predictions(home, correct=False)
    export(home, "x")
    leave_predictions(home, correct=True)
    export(home, "xx")
    assert champion(home) == "2"
    export(home, "xxx")  # equal is not better
    leave_predictions(home, correct=False)
    export(home, "xxxx", champion_metric="log_loss")
    assert champion(home) == "2"
    decisions = [run.data.tags.get("headstart.champion", "") for run in all_runs(home)[1:]]
    assert decisions == [
        "is the champion: there was none before",
        "is the champion: accuracy 1.0000 against 0.0000 of version 1 on the same 6 test pictures, better by 1.0000, "
        "6 to 0 of the pictures that only one has right (p = 0.0312, McNemar's exact test); challenger 1 of it needs "
        "p <= 0.05",
        "is not the champion: accuracy 1.0000 against 1.0000 of version 2 on the same 6 test pictures, better by "
        "0.0000, 0 to 0 of the pictures that only one has right (p = 1, no difference on any picture); challenger 1 "
        "of it needs p <= 0.05",
        "is not the champion: log_loss 2.3026 against 0.1054 of version 2 on the same 6 test pictures, better by "
        "-2.1972 (p = 0.0312, exact sign-flip test); challenger 2 of it needs p <= 0.01667",
    ]
    assert client(home).get_model_version(NAME, "3").tags["headstart.champion"] == decisions[2]
    lines = [f"MLflow: cells version {number} {decision}" for number, decision in enumerate(decisions, 1)]
    assert capfd.readouterr().err.splitlines() == lines


def test_a_champion_is_compared_on_the_pictures_of_both_test_sets(home: Path) -> None:
    leave_predictions(home, correct=False, test_set="of-last-year", known=5)
    export(home, "x")
    leave_predictions(home, correct=True, test_set="with-some-more-pictures")
    export(home, "xx")
    decision = all_runs(home)[-1].data.tags["headstart.champion"]
    assert "accuracy 1.0000 against 0.0000 of version 1 on the same 5 test pictures" in decision
    assert "5 to 0 of the pictures that only one has right (p = 0.0625, " in decision
    assert decision.startswith("is not the champion: ")
    assert champion(home) == "1"


def test_each_challenger_of_a_champion_is_counted_and_asked_for_more(home: Path) -> None:
    """Six to none is enough for the first, and not for the second. A repetition is no challenge, another metric is."""
    tags = ("headstart.challenger", "headstart.challenged")
    leave_predictions(home, correct=False)
    export(home, "x")
    export(home, "xx")
    leave_predictions(home, correct=True)
    export(home, "xxx")
    assert champion(home) == "1"
    runs = all_runs(home)[1:]
    assert [[run.data.tags.get(tag) for tag in tags] for run in runs] == [
        [None, None],
        ["1", "version 1 by accuracy"],
        ["2", "version 1 by accuracy"],
    ]
    assert (
        runs[2]
        .data.tags["headstart.champion"]
        .endswith("(p = 0.0312, McNemar's exact test); challenger 2 of it needs p <= 0.01667")
    )
    export(home, "xxx")
    client(home).delete_model_version(NAME, "2")
    export(home, "xxxx")
    export(home, "xxxx", champion_metric="log_loss")
    versions = {str(number): client(home).get_model_version(NAME, str(number)).tags for number in (3, 4)}
    assert [versions["3"][tag] for tag in tags] == ["2", "version 1 by accuracy"]
    assert [versions["4"][tag] for tag in tags] == ["4", "version 1 by log_loss"]


def test_better_and_worse_nowhere(home: Path) -> None:
    """Of 60 pictures the challenger has 40 more right, and those of the old camera wrong, which the champion had right.

    On slices that cut across it is worse on none.
    """
    test = tiny.manifest(home, "split", "test")
    images = [
        test.images[0].model_copy(
            update={
                "id": n,
                "sha256": f"{n:064x}",
                "label": ("blue", "red")[n % 2],
                "columns": {"camera": "old" if n < 10 else "new", "row": str(n % 5)},
            }
        )
        for n in range(60)
    ]
    path = home / "stages/split/test.json"
    write_manifest(Manifest(images=tuple(images), categories=test.categories), path)

    def predict(right: Callable[[int], bool]) -> None:
        rows = {
            image.sha256: tuple(0.9 if (image.label == label) == right(image.id) else 0.1 for label in ("blue", "red"))
            for image in images
        }
        saved = SavedPredictions(test_set="a", labels=("blue", "red"), probabilities=rows)
        write_predictions(saved, home / "stages/export")

    rule = {"champion_rule": "better_and_worse_nowhere"}
    predict(lambda number: number < 20)
    export(home, "x")
    predict(lambda number: number >= 10)
    export(home, "xx", {"slices": ["row", "camera"]}, **rule)
    decision = all_runs(home)[-1].data.tags["headstart.champion"]
    assert decision.startswith("is not the champion: accuracy 0.8333 against 0.3333 of version 1 on the same 60 test ")
    assert decision.endswith(" needs p <= 0.05; worse on camera old (0.0000 against 1.0000)")
    assert champion(home) == "1"
    export(home, "xx", {"slices": ["row"]}, **rule)
    decision = all_runs(home)[-1].data.tags["headstart.champion"]
    assert decision.endswith("; worse on no slice")
    assert decision.startswith("is the champion: ")
    assert champion(home) == "3"


def test_a_champion_of_another_test_set_is_not_replaced(home: Path) -> None:
    leave_predictions(home, correct=False, test_set="of-last-year", known=2)
    export(home, "x")
    leave_predictions(home, correct=True, test_set="of-this-year")
    export(home, "xx")
    assert champion(home) == "1"
    decision = all_runs(home)[-1].data.tags["headstart.champion"]
    assert decision.startswith(
        "is not the champion: version 1 is, and it was evaluated on another test set (of-last-year, here of-this-year)"
    )
    assert "move the alias by hand" in decision
    # A model registered by hand, which belongs to no run.
    made = client(home).create_model_version(NAME, "file:///elsewhere")
    client(home).set_registered_model_alias(NAME, "champion", made.version)
    export(home, "xxx")
    assert champion(home) == str(made.version) == "3"
    assert "its run has no test predictions to compare with" in all_runs(home)[-1].data.tags["headstart.champion"]


def test_a_registry_that_fails_costs_one_warning_and_the_next_export_registers(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", full)
        export(home, "x")
    warning = "warning: MLflow did not register the export: [Errno 28] No space left on device"
    warning += "; once that works, `dvc repro -f -s export` records all stages\n"
    assert capfd.readouterr().err == warning
    assert all_runs(home)[-1].info.status == "FINISHED"
    export(home, "x")
    assert champion(home) == "1"
    assert len(all_runs(home)) == 2

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", full)
        export(home, "xx")
    assert STAGE_TAG_PREFIX + "export" not in all_runs(home)[-1].data.tags
    export(home, "xx")
    newest = all_runs(home)[-1]
    assert len(all_runs(home)) == 3
    models = client(home).search_logged_models([newest.info.experiment_id])
    statuses = sorted(str(model.status) for model in models if model.source_run_id == newest.info.run_id)
    assert statuses == ["FAILED", "READY"]


def test_mlflow_serves_the_champion(home: Path, project: Project) -> None:
    """The command of the README, and a picture posted to it."""
    export(home, "x")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@champion"]
    options = ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with (home / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *options], cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/ping", server, home / "serve.log")
        path = project.root / tiny.manifest(home, "split", "test").images[0].file_name
        (expected,) = Predictor(project.root / "stages/export").predict_files([path])
        status, body = post(port, base64.b64encode(path.read_bytes()).decode())
        assert status == 200
        (row,) = body["predictions"]
        assert row["label"] == expected.label
        assert row["probabilities"] == pytest.approx(expected.probabilities)
        status, body = post(port, base64.b64encode(b"no picture").decode())
        assert status == 400
        assert "not a picture" in json.dumps(body)
        (home / "shadow").write_text("s3cret")
        status, body = post(port, str(home / "shadow"))
        assert status == 400
        assert "shadow: not a picture" in json.dumps(body)
        assert "s3cret" not in json.dumps(body)
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def wait_until_up(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)


def post(port: int, picture: str) -> tuple[int, Any]:
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[picture]]}}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
