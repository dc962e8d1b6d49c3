"""The MLflow store: which one it is, and reaching it in seconds or not at all."""

import json
import logging
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.params import TrackingParams

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCK_SECONDS = 10  # how long another pipeline may hold the database
ENVIRONMENT = {  # unless the user says otherwise: a server that is down costs seconds, and stdout stays ours
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

# MLflow's page shows neither a metric nor a param until one picks columns. A saved view has them picked; it opens from
# the page's menu, or at #/experiments/<id>/runs?workflowType=machine_learning&viewStateShareKey=headstart
COLUMNS = (
    "metrics.`test/accuracy`",
    "metrics.`test/AP50`",
    "metrics.`head_only/accuracy`",
    "metrics.`head_only/AP50`",
    "params.`model.backbone`",
    "params.`train_head.lr`",
    "params.`fine_tune.lr`",
    "params.`fine_tune.freeze_depth`",
)
VIEW = {"name": "Results", "createdAt": 0, "updatedAt": 0, "state": json.dumps({"selectedColumns": COLUMNS})}
EXPERIMENT_TAGS = {
    "mlflow.note.content": "A row is one variant of the pipeline. Switch to Model training, then open Views, Results.",
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.sharedViewState.headstart": json.dumps(VIEW),
}


def connect(params: TrackingParams, home: Path) -> "MlflowClient":
    """A client of the store, which is mlflow.db at the repository's root unless the user says otherwise.

    It works on explicit runs of an explicit store: MLFLOW_RUN_ID has no say in it.

    Raises:
        Exception: whatever MLflow, its database or the network comes up with.
    """
    _set_environment()
    uri = _uri(params, home)
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        if not path.exists():
            _make_database(path)
        # Ask SQLite itself first: it says in a few words and at once that a database is locked, read-only or damaged.
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
    elif not _remote(uri):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 3  # ten by default, which is 100 s of waiting for a database that is not there
    return _client(uri)


def experiment(client: "MlflowClient", params: TrackingParams, home: Path) -> str:
    """The experiment's id; made at first use. Beside a local database the artifacts lie at the repository's root."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or params.experiment
    if (found := client.get_experiment_by_name(name)) is None:
        folder = None if _remote(client.tracking_uri) else (home / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, folder, EXPERIMENT_TAGS))
        except MlflowException:
            if (found := client.get_experiment_by_name(name)) is None:  # else another pipeline made it just now
                raise
    return str(found.experiment_id)


def warm_up() -> None:
    """Import MLflow and its database store: seconds, so beside a stage's work."""
    _set_environment()
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401


def _set_environment() -> None:
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def _client(uri: str) -> "MlflowClient":
    from mlflow.tracking import MlflowClient  # 1.5 s, so only once the stage's work is done

    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def _make_database(path: Path) -> None:
    """Make the database beside its place and move it there whole.

    MLflow makes it in place, in dozens of migrations; two pipelines at once, or one that is killed meanwhile, would
    leave a database that nothing opens any more.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        _client(f"sqlite:///{part.as_posix()}")
        try:
            path.hardlink_to(part)  # unlike a rename, this never replaces the database of a faster pipeline
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            part.replace(path)


def _uri(params: TrackingParams, home: Path) -> str:
    """A relative SQLite path is relative to the repository, wherever the stage runs."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.uri or "sqlite:///mlflow.db"
    if not uri.startswith("sqlite:///"):
        return uri
    return f"sqlite:///{(home / uri.removeprefix('sqlite:///')).as_posix()}"


def _remote(uri: str) -> bool:
    return uri.startswith(("http", "databricks"))
