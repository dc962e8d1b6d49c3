"""The MLflow run of this pipeline: one run is one variant, whichever stages DVC executes for it.

Files are the truth. A stage first finishes its work on disk; then this module records what lies there, and a failure
to record is one warning. DVC does not execute cached stages, so a stage also records what the stages before it left
in stages/ and the run lacks. A run goes on only while all of that agrees with what it holds; otherwise a new one
begins. Three tags carry this:

    headstart.variant         the experiment's name, or the hash of params.yaml and data.dvc
    headstart.key             variant, inputs and workspace in one hash: by this a stage finds its runs
    headstart.stage.<stage>   hash of the stage's results, written when they are all in the run

After each stage the run is FINISHED, not only after export: between two stages no process is left to end it, and a
pipeline that was killed would seem to run for ever. `headstart.progress` says how far it came.
"""

import getpass
import hashlib
import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import files, records
from headstart.params import Params

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Direct needs, in pipeline order. `weights` stands beside fetch, split and augment: DVC may run it after them.
NEEDS: dict[str, tuple[str, ...]] = {
    "fetch": (),
    "weights": (),
    "split": ("fetch",),
    "augment": ("split",),
    "train-head": ("weights", "augment"),
    "fine-tune": ("train-head",),
    "evaluate": ("fine-tune",),
    "export": ("evaluate",),
}
STAGES = tuple(NEEDS)

STAGE_TAG = "headstart.stage."
LOCK_SECONDS = 10  # how long another pipeline may hold the database
ENVIRONMENT = {  # unless the user says otherwise: a server that is down costs seconds, and stdout stays ours
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@contextmanager
def stage(name: str, params: Params, root: Path) -> Iterator[None]:
    """Record a stage in the pipeline's MLflow run once its work is done; on an exception mark the run as failed.

    Only the first of several processes records. Nothing that goes wrong in here reaches the caller.

        with tracking.stage("train-head", params, root):
            train_head(...)
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    began = int(time.time() * 1000)
    try:
        yield
    except BaseException as error:
        _record_or_warn(name, params, root, began, error)
        raise
    _record_or_warn(name, params, root, began, None)


def upstream(name: str) -> list[str]:
    """All stages whose results a stage rests on, in pipeline order."""
    needed = {name}
    for candidate in reversed(STAGES):
        if candidate in needed:
            needed.update(NEEDS[candidate])
    return [candidate for candidate in STAGES if candidate in needed and candidate != name]


def _record_or_warn(name: str, params: Params, root: Path, began: int, error: BaseException | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow and what it imports; the user can mend none of it
            _record(name, params, root, began, error)
    except Exception as failure:  # whatever a tracker can do wrong, training has been done right
        print(f"warning: MLflow did not record {name}: {_one_line(failure)}", file=sys.stderr)


def _record(name: str, params: Params, root: Path, began: int, error: BaseException | None) -> None:
    home = Path(
        os.environ.get("DVC_ROOT") or root
    ).resolve()  # the repository, also while root is a copy under .dvc/tmp
    client = _connect(_store(params, home))
    experiment = _experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME") or params.tracking.experiment, home)

    digests = {before: records.digest(root / "stages" / before) for before in upstream(name)}
    digests = {before: digest for before, digest in digests.items() if digest}
    # A failed stage has no results, and no run that has them is the one that failed.
    digests[name] = "" if error else records.digest(root / "stages" / name) or "no results"

    run_id, held = _find_or_create(client, experiment, digests, params=params, root=root, began=began)
    lacking = [each for each, digest in digests.items() if digest and STAGE_TAG + each not in held]
    if not lacking and not error:
        print(f"MLflow: a run of this variant already holds these results of {name}", file=sys.stderr)
        return
    for each in lacking:
        _log_stage(client, run_id, each, params, root)
        # The tag is written last: its presence means that the run holds the whole stage.
        client.set_tag(run_id, STAGE_TAG + each, digests[each])
    ending = "done" if error is None else f"failed: {type(error).__name__}: {_one_line(error)}"
    client.set_tag(run_id, "headstart.progress", f"{name} {ending}")
    client.set_terminated(run_id, _status(error))


def _status(error: BaseException | None) -> str:
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _find_or_create(
    client: "MlflowClient", experiment: str, digests: dict[str, str], *, params: Params, root: Path, began: int
) -> tuple[str, dict[str, str]]:
    """The newest run of this variant that contradicts nothing on disk, else a new one; its id and tags."""
    inputs = records.inputs_digest(params, root)
    name = os.environ.get("DVC_EXP_NAME")
    # The workspace is in it: two people, or two experiments at once, never write into one run.
    identity = f"{name} {inputs} {_user()} {root.resolve()}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    runs = client.search_runs([experiment], f"tags.`headstart.key` = '{key}'", order_by=["attributes.start_time DESC"])
    for run in runs:
        if all(run.data.tags.get(STAGE_TAG + each, digest) == digest for each, digest in digests.items()):
            return run.info.run_id, run.data.tags

    tags = {"headstart.key": key, "headstart.variant": name or inputs, "headstart.inputs": inputs} | _source(root)
    title = name or f"{params.model.backbone} {inputs[:6]}"
    run = client.create_run(
        experiment, start_time=began, tags=tags, run_name=f"{title} ({len(runs) + 1})" if runs else title
    )
    return run.info.run_id, run.data.tags


def _log_stage(client: "MlflowClient", run_id: str, name: str, params: Params, root: Path) -> None:
    """Put one stage's files into the run. Doing it again after half of it failed gives the same run."""
    from mlflow.entities import Metric, Param

    folder = root / "stages" / name
    settings = records.flat_params(params) | (records.weights_params(folder) if name == "weights" else {})
    pairs = [Param(key, value) for key, value in settings.items()]
    for start in range(0, len(pairs), 100):  # MLflow's limits for one batch: 100 params, 1000 metrics
        client.log_batch(run_id, params=pairs[start : start + 100], synchronous=True)
    metrics = [Metric(point.key, point.value, point.time, point.step) for point in records.points(name, folder)]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000], synchronous=True)
    if name == "fetch":
        _log_dataset(client, run_id, folder, params)
    if (root / "params.yaml").is_file():
        client.log_artifact(run_id, str(root / "params.yaml"))
    for path in records.artifacts(folder):
        client.log_artifact(run_id, str(path), artifact_path=name)


def _log_dataset(client: "MlflowClient", run_id: str, folder: Path, params: Params) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest, counts = folder / "annotations.json", folder / "metrics.json"
    if not manifest.is_file():
        return
    dataset = Dataset(
        name=records.dataset_name(params),
        digest=files.sha256(manifest)[:36],  # all that MLflow's column holds
        source_type="local",
        source='{"uri": "stages/fetch/annotations.json"}',
        profile=counts.read_text(encoding="utf-8") if counts.is_file() else None,
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _store(params: Params, home: Path) -> str:
    """The store's URI; a relative SQLite path is relative to the repository."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri or "sqlite:///mlflow.db"
    if not uri.startswith("sqlite:///"):
        return uri
    return f"sqlite:///{(home / uri.removeprefix('sqlite:///')).as_posix()}"


def _connect(uri: str) -> "MlflowClient":
    if uri.startswith("sqlite:///"):
        # Ask SQLite itself first: of a database that is locked, read-only or damaged MLflow makes minutes of retries.
        path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    from mlflow.tracking import MlflowClient  # 1.5 s, so only once the stage's work is done

    for noisy in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)  # explicit runs of an explicit store: MLFLOW_RUN_ID has no say


def _experiment(client: "MlflowClient", name: str, home: Path) -> str:
    from mlflow.exceptions import MlflowException

    if (found := client.get_experiment_by_name(name)) is None:
        local = not client.tracking_uri.startswith(("http", "databricks"))
        with suppress(MlflowException):  # another pipeline made it just now; any other trouble shows below
            return str(client.create_experiment(name, (home / "mlartifacts").as_uri() if local else None))
        found = client.get_experiment_by_name(name)
    if found is None:
        raise RuntimeError(f"experiment {name!r} can neither be found nor made")
    return str(found.experiment_id)


def _source(root: Path) -> dict[str, str]:
    """MLflow's own tags for the code's state; `dirty` leaves out what the pipeline itself writes."""
    tags = {"mlflow.source.name": "dvc.yaml", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    if commit := _git(root, "rev-parse", "HEAD"):
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!stages", ":!dvc.lock")
        tags |= {"mlflow.source.git.commit": commit, "headstart.dirty": str(bool(changed)).lower()}
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _one_line(error: BaseException) -> str:
    """The message without line breaks, and without the password of a tracking URI."""
    return re.sub(r"//[^/@\s]+@", "//…@", " ".join(str(error).split()))[:300] or type(error).__name__
