"""The exported model in MLflow: logged, registered, champion or not, and served over HTTP by MLflow itself."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
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
from headstart import mlflow_store, registry, sitting, tracking
from headstart.predict import Model
from headstart.servable import Servable
from headstart.sitting import Sitting
from test_dvc import closure

NAME = "cells"


@pytest.fixture(scope="module")
def store(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny project whose export has been recorded, without registering it."""
    home = tmp_path_factory.mktemp("registry") / "home"
    shutil.copytree(project.root, home)
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)
        tracking.record("export", tiny.make_params(), home, 1)
    return home


@pytest.fixture
def home(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database and the stages are the test's own; what lies in mlartifacts is shared."""
    clean(monkeypatch)
    shutil.copy(store / "mlflow.db", tmp_path)
    for stage in ("evaluate", "export", "split"):
        shutil.copytree(store / "stages" / stage, tmp_path / "stages" / stage)
    return tmp_path


def clean(patch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("MLFLOW_", "DVC_", "GIT_")) or variable == "RANK":
            patch.delenv(variable)
    for variable, value in mlflow_store.ENVIRONMENT.items():
        patch.setenv(variable, value)
    patch.setattr("sys.path", [*sys.path])  # MLflow puts a loaded model's own code first


def client(home: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def export(home: Path, change: str = "", **params: Any) -> None:
    """As if export had run anew and `change` were what the exam says now."""
    (home / "stages/evaluate/metrics.json").write_text(json.dumps({"test": {"accuracy": len(change)}}))
    tracking.record("export", tiny.make_params(export={"register": NAME, **params}), home, time.time_ns() // 1_000_000)


def answer(home: Path, *, right: bool, exam: str = "") -> None:
    """The exported model answers everything right, or everything wrong."""
    found = sitting.read(home / "stages/export/answers.json")
    test = tiny.manifest(home, "split", "test")
    rows = {i.sha256: tuple(0.9 if (i.label == label) == right else 0.1 for label in found.labels) for i in test.images}
    sitting.write(Sitting(exam=exam or found.exam, labels=found.labels, probabilities=rows), home / "stages/export")


def runs(home: Path) -> list[Run]:
    """Oldest first."""
    found = client(home).search_experiments(filter_string="name = 'headstart'")
    return list(client(home).search_runs([found[0].experiment_id], order_by=["attributes.start_time ASC"]))


def champion(home: Path) -> str:
    return str(client(home).get_registered_model(NAME).aliases["champion"])


def logged(home: Path) -> Path:
    """The folder of the only logged model."""
    (found,) = client(home).search_logged_models([runs(home)[0].info.experiment_id])
    assert found.status == "READY"
    return Path(found.artifact_location.removeprefix("file://"))


def test_a_run_holds_one_servable_model(home: Path) -> None:
    (run,) = runs(home)
    assert "headstart.registered" not in run.data.tags
    assert not client(home).search_registered_models()
    folder = logged(home)
    assert run.outputs is not None
    assert [one.model_id for one in run.outputs.model_outputs] == [folder.parent.name]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {"", ".json", ".md", ".onnx", ".py", ".txt", ".yaml"}, "nothing pickled"
    assert (folder / "requirements.txt").read_text().split() == [f"{n}=={version(n)}" for n in registry.NEEDED]
    assert not {"torch", "timm"} & set(registry.NEEDED)
    assert {path.stem for path in (folder / "code/headstart").iterdir()} == set(registry.CODE)


def test_the_code_beside_it_is_all_that_it_imports() -> None:
    assert {f"headstart.{name}" for name in registry.CODE if name != "__init__"} == closure("headstart.servable")


def test_bytes_base64_and_paths_are_answered_as_headstart_predict_does(home: Path, project: Project) -> None:
    model = pyfunc.load_model(str(logged(home)))
    paths = [project.root / image.file_name for image in tiny.manifest(home, "split", "test").images[:2]]
    wanted = list(Model(project.root / "stages/export").predict(paths))
    data = paths[0].read_bytes()
    text = base64.b64encode(data).decode()
    said = model.predict(pd.DataFrame({"image": [data, text, f"data:image/png;base64,{text}", str(paths[0])]}))
    for row in [*said, *model.predict(pd.DataFrame({"image": [str(paths[0])]}))]:
        assert row["probabilities"] == pytest.approx(wanted[0].probabilities)
        assert (row["label"], row["probability"]) == (wanted[0].label, max(row["probabilities"].values()))
    (other,) = model.predict(pd.DataFrame({"image": [paths[1].read_bytes()]}))
    assert other["probabilities"] == pytest.approx(wanted[1].probabilities)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("gone.png", "picture 1: neither base64 nor a file that can be read: 'gone.png'"),
        ("größe.png", "picture 1: neither base64 nor a file that can be read: 'größe.png'"),
        (base64.b64encode(b"no picture".ljust(3072)).decode(), "picture 1: not a picture"),  # as long as a path may be
        (base64.b64encode(b"no picture").decode(), "picture 1: not a picture"),
        (b"", "picture 1: an empty file"),
        (7, "picture 1: bytes, base64 or a path are wanted, not int"),
    ],
)
def test_what_is_no_picture_is_a_sentence(home: Path, project: Project, picture: object, said: str) -> None:
    model = pyfunc.load_model(str(logged(home)))
    good = project.root / tiny.manifest(home, "split", "test").images[0].file_name
    with pytest.raises(ValueError, match=said):
        model.predict(pd.DataFrame({"image": [good.read_bytes(), picture]}))


def test_a_file_that_cannot_be_read_is_a_sentence(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    servable = Servable(project.root / "stages/export")
    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match="picture 0: neither base64 nor a file that can be read: "):
        servable.predict({"image": [str(tmp_path / "a.png")]})


def test_nothing_is_quoted_of_a_file_that_is_no_picture(project: Project, tmp_path: Path) -> None:
    servable = Servable(project.root / "stages/export")
    path = tmp_path / "shadow"
    for begin, said in ((b"", "not a picture"), (b"P6\n", "broken"), (b"<html>", "web page")):
        path.write_bytes(begin + b"s3cret")
        with pytest.raises(ValueError, match=f"^picture 0: {path}: {said}$") as caught:
            servable.predict({"image": [str(path)]})
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)), "nor in what led to it"


def test_the_logged_model_says_what_it_takes_and_gives(home: Path) -> None:
    model = pyfunc.load_model(str(logged(home)))
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["image"]
    (row,) = model.predict(model.input_example)
    assert signature.outputs.input_names() == list(row) == ["label", "probability", "probabilities"]


def test_a_name_given_later_registers_the_run_that_is_there(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for register in ("", NAME, NAME):
        tracking.record("export", tiny.make_params(export={"register": register}), home, 2)
    _, run = runs(home)  # the first is of another folder
    assert run.data.tags["headstart.registered"] == "cells version 1"
    assert run.data.tags["headstart.champion"] == "is the champion: the name had none"
    assert champion(home) == "1"
    lines = [line for line in capfd.readouterr().err.splitlines() if "already holds" not in line]
    assert lines == [
        "MLflow: cells version 1 is the champion: the name had none",
        "MLflow: cells version 1 is the champion already",
    ]
    assert run.outputs is not None
    tag = client(home).get_logged_model(run.outputs.model_outputs[0].model_id).tags[registry.LINKS]
    assert json.loads(tag) == [{"name": NAME, "version": 1}]


def test_the_better_one_becomes_champion_and_no_other(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer(home, right=False)
    export(home, "x")
    answer(home, right=True)
    export(home, "xx")
    assert champion(home) == "2"
    export(home, "xxx")  # as good: no better
    answer(home, right=False)
    export(home, "xxxx", champion_metric="log_loss")
    assert champion(home) == "2"
    told = [run.data.tags.get("headstart.champion", "") for run in runs(home)[1:]]
    assert told == [
        "is the champion: the name had none",
        "is the champion: accuracy 1.0000 against 0.0000 of version 1 on the same 6 test pictures, better by 1.0000 "
        "(95 % interval 1.0000 to 1.0000, above 0)",
        "is not the champion: accuracy 1.0000 against 1.0000 of version 2 on the same 6 test pictures, better by "
        "0.0000 (95 % interval 0.0000 to 0.0000, not above 0)",
        "is not the champion: log_loss 2.3026 against 0.1054 of version 2 on the same 6 test pictures, better by "
        "-2.1972 (95 % interval -2.1972 to -2.1972, not above 0)",
    ]
    assert client(home).get_model_version(NAME, "3").tags["headstart.champion"] == told[2]
    assert capfd.readouterr().err.splitlines() == [f"MLflow: cells version {n} {t}" for n, t in enumerate(told, 1)]


def test_a_champion_of_other_pictures_is_not_replaced(home: Path) -> None:
    answer(home, right=False, exam="of-last-year")
    export(home, "x")
    answer(home, right=True, exam="of-this-year")
    export(home, "xx")
    assert champion(home) == "1"
    said = runs(home)[-1].data.tags["headstart.champion"]
    assert said.startswith(
        "is not the champion: version 1 holds it and was judged on other test pictures (exam of-last"
    )
    assert "move the alias by hand" in said
    # Somebody's own model, of which no run knows.
    made = client(home).create_model_version(NAME, "file:///elsewhere")
    client(home).set_registered_model_alias(NAME, "champion", made.version)
    export(home, "xxx")
    assert champion(home) == str(made.version) == "3"
    assert "nothing says what that answered" in runs(home)[-1].data.tags["headstart.champion"]


def test_a_registry_that_fails_costs_one_warning_and_is_made_up_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", full)
        export(home, "x")
    said = "warning: MLflow did not register the export: [Errno 28] No space left on device\n"
    assert capfd.readouterr().err == said
    assert runs(home)[-1].info.status == "FINISHED"
    export(home, "x")
    assert champion(home) == "1"
    assert len(runs(home)) == 2

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", full)
        export(home, "xx")
    assert tracking.STAGE_TAG + "export" not in runs(home)[-1].data.tags
    export(home, "xx")
    newest = runs(home)[-1]
    assert len(runs(home)) == 3
    models = client(home).search_logged_models([newest.info.experiment_id])
    states = sorted(str(one.status) for one in models if one.source_run_id == newest.info.run_id)
    assert states == ["FAILED", "READY"]


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
        wait(f"http://127.0.0.1:{port}/ping", server, home / "serve.log")
        path = project.root / tiny.manifest(home, "split", "test").images[0].file_name
        (wanted,) = Model(project.root / "stages/export").predict([path])
        status, said = post(port, base64.b64encode(path.read_bytes()).decode())
        assert status == 200
        (row,) = said["predictions"]
        assert row["label"] == wanted.label
        assert row["probabilities"] == pytest.approx(wanted.probabilities)
        status, said = post(port, base64.b64encode(b"no picture").decode())
        assert status == 400
        assert "not a picture" in json.dumps(said)
        (home / "shadow").write_text("s3cret")
        status, said = post(port, str(home / "shadow"))
        assert status == 400
        assert "shadow: not a picture" in json.dumps(said)
        assert "s3cret" not in json.dumps(said)
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def wait(address: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 240
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)


def post(port: int, picture: str) -> tuple[int, Any]:
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[picture]]}}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
