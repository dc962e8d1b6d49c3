"""Where the store lies, whatever its folder is called; a deleted experiment."""

import os
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from headstart.params.root import TrackingParams
from headstart.tracking import store
from headstart.tracking.runs import record_stage
from headstart.tracking.store import MLFLOW_ENVIRONMENT, connect_store, get_experiment_id, import_mlflow
from tracking.test_runs import created_together, execute, leave_files, make_params  # noqa: F401


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("MLFLOW_", "DVC_")):
            monkeypatch.delenv(variable)
    for variable, value in MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)


@pytest.mark.parametrize("name", ["My%20Project", "what?", "50%", "a#b;c&d=1", "größe a@b"])
def test_the_store_lies_in_a_folder_of_any_name(tmp_path: Path, created_together: Path, name: str) -> None:  # noqa: F811
    home = tmp_path / name
    home.mkdir()
    shutil.copy(created_together / "mlflow.db", home)
    execute(home, ["fetch", "train-head"], make_params(tracking={"uri": "sqlite:///mlflow.db"}))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in home.iterdir()} == {"mlflow.db", "mlartifacts", "stages"}
    client = connect_store(TrackingParams(), home)
    (run,) = client.search_runs([get_experiment_id(client, TrackingParams(), home)])
    assert run.data.metrics["fetch/pictures"] == 12
    copy = client.download_artifacts(run.info.run_id, "train-head/history.csv", str(tmp_path))
    assert Path(copy).read_text() == (home / "stages/train-head/history.csv").read_text()


def test_a_store_is_created_in_such_a_folder(tmp_path: Path) -> None:
    home = tmp_path / "My%20Project?"
    home.mkdir()
    connect_store(TrackingParams(), home)
    assert [path.name for path in tmp_path.iterdir()] == [home.name]
    assert [path.name for path in home.iterdir()] == ["mlflow.db"]


def test_an_address_is_read_as_sqlalchemy_reads_it(tmp_path: Path) -> None:
    for uri, path in {
        "sqlite:///runs.db": tmp_path / "runs.db",
        "sqlite:////elsewhere/my%20runs.db?timeout=5": Path("/elsewhere/my runs.db"),
        "sqlite:///my%2520runs.db": tmp_path / "my%20runs.db",
    }.items():
        assert store._sqlite_path(store._store_uri(TrackingParams(uri=uri), tmp_path)) == path
    assert store._sqlite_path("http://host/sqlite") is None


def test_a_deleted_experiment_says_how_to_go_on(
    tmp_path: Path,
    created_together: Path,  # noqa: F811
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(created_together / "mlflow.db", tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    leave_files(tmp_path, "fetch")
    params = make_params(tracking={"experiment": "gone"})
    record_stage("fetch", params, tmp_path, 0)
    assert capfd.readouterr().err == (
        "warning: MLflow did not record fetch: the experiment 'gone' is deleted; `mlflow experiments restore "
        f"--experiment-id {number}`, or give tracking.experiment (MLFLOW_EXPERIMENT_NAME where it is set) another "
        "name; the stage's own files are complete, and the next stage records them too\n"
    )
    client.restore_experiment(number)
    record_stage("fetch", params, tmp_path, 0)
    assert len(client.search_runs([number])) == 1


def test_mlflow_is_imported_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    import_mlflow()
    assert capfd.readouterr() == ("", "")
