"""The MLflow store: its address, its client with short timeouts, its experiment, its SQLite database."""

import json
import logging
import os
import sqlite3
import tempfile
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from headstart.base.errors import UserError
from headstart.params.root import TrackingParams

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE, SQLITE_WITH_DRIVER = "sqlite:///", "sqlite+pysqlite:///"
LOCK_SECONDS = 10  # how long to wait for another pipeline's lock on the database
MLFLOW_ENVIRONMENT = {  # defaults: a server that is down costs seconds, and MLflow prints nothing to stdout
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

# MLflow's page shows no metric or param until one selects columns. A saved view has them selected; it opens from the
# page's menu, or at #/experiments/<id>/runs?workflowType=machine_learning&viewStateShareKey=headstart
VIEW_COLUMNS = (
    "metrics.`test/accuracy`",
    "metrics.`test/AP50`",
    "metrics.`head_only/accuracy`",
    "metrics.`head_only/AP50`",
    "params.`model.backbone`",
    "params.`train_head.lr`",
    "params.`fine_tune.lr`",
    "params.`fine_tune.freeze_depth`",
    "tags.`headstart.kept`",
)
SAVED_VIEW = {"name": "Results", "createdAt": 0, "updatedAt": 0, "state": json.dumps({"selectedColumns": VIEW_COLUMNS})}
EXPERIMENT_TAGS = {
    "mlflow.note.content": "A row is one variant of the pipeline. Switch to Model training, then open Views, Results.",
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.sharedViewState.headstart": json.dumps(SAVED_VIEW),
}


def connect_store(params: TrackingParams, home: Path) -> "MlflowClient":
    """A client of the store: MLFLOW_TRACKING_URI, else `tracking.uri`, else mlflow.db at the repository's root.

    It works on explicit runs of an explicit store: MLFLOW_RUN_ID has no effect.

    Args:
        params: the section `tracking`.
        home: the repository's root.

    Raises:
        Exception: any error of MLflow, its database or the network.
    """
    _set_environment()
    uri = _store_uri(params, home)
    if path := _sqlite_path(uri):
        if not path.exists():
            _create_database(path)
        # Through SQLite itself first: its error is short and immediate if the database is locked, read-only or damaged.
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
    elif not _is_remote(uri):
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 3  # the default of ten waits 100 s for a database that does not exist
    return _client(uri)


def get_experiment_id(client: "MlflowClient", params: TrackingParams, home: Path) -> str:
    """The experiment's id; created at first use. With a local database the artifacts are in `home`/mlartifacts.

    Raises:
        UserError: the experiment is deleted.
        Exception: any error of MLflow, its database or the network.
    """
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or params.experiment
    if (experiment := client.get_experiment_by_name(name)) is None:
        folder = None if _is_remote(client.tracking_uri) else (home / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, folder, EXPERIMENT_TAGS))
        except MlflowException:
            if (experiment := client.get_experiment_by_name(name)) is None:  # else another pipeline just created it
                raise
    if experiment.lifecycle_stage == "deleted":
        number = experiment.experiment_id
        store = f"MLFLOW_TRACKING_URI={uri} " if (uri := tracking_uri(params)) else ""
        raise UserError(
            f"the experiment {name!r} is deleted; `{store}mlflow experiments restore --experiment-id {number}`, or "
            "give tracking.experiment (MLFLOW_EXPERIMENT_NAME where it is set) another name"
        )
    return str(experiment.experiment_id)


def tracking_uri(params: TrackingParams) -> str:
    """The address as the user gave it, in the environment or in params.yaml; empty: the default."""
    return os.environ.get("MLFLOW_TRACKING_URI") or params.uri


def import_mlflow() -> None:
    """Import MLflow and its database store, which takes seconds; warnings, which the user cannot fix, are ignored."""
    _set_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401


def _set_environment() -> None:
    for variable, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def _client(uri: str) -> "MlflowClient":
    from mlflow.tracking import MlflowClient  # 1.5 s

    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def _create_database(path: Path) -> None:
    """Create the database under a temporary name, and move it to `path` when it is complete.

    MLflow creates it in place, by dozens of migrations; two pipelines at once, or one that is killed meanwhile, would
    leave a database that cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        _client(_sqlite_uri(part))
        try:
            path.hardlink_to(part)  # unlike a rename, never replaces a database that another pipeline has just created
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            part.replace(path)


def _store_uri(params: TrackingParams, home: Path) -> str:
    """The store's URI; a relative SQLite path is relative to the repository's root, wherever the stage runs."""
    uri = tracking_uri(params) or "sqlite:///mlflow.db"
    if not uri.startswith(SQLITE):
        return uri
    path, question, query = uri.removeprefix(SQLITE).partition("?")
    return _sqlite_uri(home / unquote(path)) + question + query


def _sqlite_uri(path: Path) -> str:
    """The URI of a database's path, in which SQLAlchemy decodes %20, and `?` ends the path."""
    quoted = path.as_posix().replace("%", "%25").replace("?", "%3F")
    # MLflow makes the folder of what follows sqlite:/// as it stands, and would make the quoted one; it leaves this
    # form of the same address alone.
    return f"{SQLITE if quoted == path.as_posix() else SQLITE_WITH_DRIVER}{quoted}"


def _sqlite_path(uri: str) -> Path | None:
    """The database's path; None: it is no SQLite database."""
    for start in (SQLITE, SQLITE_WITH_DRIVER):
        if uri.startswith(start):
            return Path(unquote(uri.removeprefix(start).partition("?")[0]))
    return None


def _is_remote(uri: str) -> bool:
    return uri.startswith(("http", "databricks"))
