"""The pipeline's MLflow run: one run is one variant (params and data), whichever stages DVC executes for it.

Files come first: a stage finishes its work on disk, then this module records what lies there, and a failure to record
is one warning. DVC does not execute cached stages, so a stage also records what its upstream stages left in stages/
and the run lacks. Downstream stages are not recorded: their files may be those of another variant.

A row is a result. A run is resumed only while the files on disk agree with what it holds, otherwise a new one begins.
A stage whose results a run holds already adds nothing, because DVC then skips its downstream stages, and a run begun
here would never be complete. This state is kept in tags:

    headstart.variant         DVC's experiment name, or the same as inputs
    headstart.inputs          hash of params.yaml and data.dvc
    headstart.workspace       hash of the user and the repository's folder
    headstart.stage.<stage>   hash of the stage's results, written when all of them are in the run

After each stage the run is FINISHED, not only after export: between two stages no process is left to end it, and a
killed pipeline's run would stay RUNNING for ever. `headstart.progress` is the last stage recorded.
"""

import getpass
import hashlib
import os
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.files import sha256_file
from headstart.params.root import Params
from headstart.tracking import registry, stage_results
from headstart.tracking.git_tags import git_tags
from headstart.tracking.stage_graph import STAGE_DEPENDENCIES, upstream_stages
from headstart.tracking.store import connect_store, get_experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STAGE_TAG_PREFIX = "headstart.stage."


@dataclass(frozen=True)
class StageFailure:
    """Why a stage did not finish. `user_error`: a UserError, whose message is one line for the user."""

    reason: str
    interrupted: bool = False
    user_error: bool = False


def record_stage(name: str, params: Params, root: Path, started_ms: int, failure: StageFailure | None = None) -> None:
    """Record a stage in the pipeline's MLflow run; an error is printed as one warning.

    Args:
        name: the stage.
        params: of this execution.
        root: the repository root.
        started_ms: when it started, in milliseconds since 1970.
        failure: why it did not finish; None if it did.
    """
    assert name in STAGE_DEPENDENCIES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow and its imports; the user can fix none of them
            action = f"record {name}"
            recorded = _record_stage(name, params, root, started_ms, failure)
            if recorded and name == "export" and params.export.register_as:
                action = "register the export"
                print(f"MLflow: {registry.register_model(*recorded, params, root)}", file=sys.stderr)
    except Exception as error:  # whatever goes wrong in MLflow, the stage itself has succeeded
        print(f"warning: MLflow did not {action}: {_one_line(str(error)) or type(error).__name__}", file=sys.stderr)


def _record_stage(
    name: str, params: Params, root: Path, started_ms: int, failure: StageFailure | None
) -> "tuple[MlflowClient, Run] | None":
    """The store and the run that holds the stage; None if it failed."""
    runs = _VariantRuns.connect(params, root)
    digests = {stage: stage_results.results_digest(root / "stages" / stage) for stage in [*upstream_stages(name), name]}
    digests = {stage: digest for stage, digest in digests.items() if digest and not (failure and stage == name)}
    run = runs.find_resumable_run(name, digests)
    if not run and not failure and (other := runs.find_run_with_results(digests)):
        print(f"MLflow: run {other.info.run_name!r} already holds these results of {name}", file=sys.stderr)
        return runs.client, other

    if failure and failure.user_error and not digests:
        return None  # a typo before the first stage has finished is no experiment
    run = run or runs.new_run(started_ms)
    for stage, digest in digests.items():
        if STAGE_TAG_PREFIX + stage not in run.data.tags:
            runs.log_stage(run, stage, digest)
    outcome = f"failed: {_one_line(failure.reason)}" if failure else "done"
    runs.client.set_tag(run.info.run_id, "headstart.progress", f"{name} {outcome}")
    status = "FINISHED" if not failure else "KILLED" if failure.interrupted else "FAILED"
    runs.client.set_terminated(run.info.run_id, status)
    return None if failure else (runs.client, run)


@dataclass(frozen=True)
class _VariantRuns:
    """The MLflow runs of one variant in one workspace."""

    client: "MlflowClient"
    experiment: str
    params: Params
    root: Path
    workspace: str
    inputs: str
    variant: str

    @classmethod
    def connect(cls, params: Params, root: Path) -> "_VariantRuns":
        # The repository's root, also while `root` is the copy under .dvc/tmp that `dvc exp run --temp` works in.
        home = Path(os.environ.get("DVC_ROOT") or root).resolve()
        client = connect_store(params.tracking, home)
        inputs = stage_results.inputs_digest(params, root)
        return cls(
            client=client,
            experiment=get_experiment_id(client, params.tracking, home),
            params=params,
            root=root,
            workspace=hashlib.sha256(f"{_user()} {home}".encode()).hexdigest()[:16],
            inputs=inputs,
            variant=os.environ.get("DVC_EXP_NAME") or inputs,
        )

    def find_run_with_results(self, digests: dict[str, str]) -> "Run | None":
        """A run of this workspace, whatever its variant, that holds all these results."""
        return next(iter(self._search({STAGE_TAG_PREFIX + stage: digest for stage, digest in digests.items()})), None)

    def find_resumable_run(self, name: str, digests: dict[str, str]) -> "Run | None":
        """The newest run of this variant that lacks the stage and agrees with the results on disk."""
        for run in self._runs_of_variant():
            tags = run.data.tags
            agrees = all(tags.get(STAGE_TAG_PREFIX + stage, digest) == digest for stage, digest in digests.items())
            if agrees and STAGE_TAG_PREFIX + name not in tags:
                return run
        return None

    def new_run(self, started_ms: int) -> "Run":
        earlier = len(self._runs_of_variant())
        title = os.environ.get("DVC_EXP_NAME") or f"{self.params.model.backbone} {self.inputs[:6]}"
        tags = {
            "headstart.variant": self.variant,
            "headstart.inputs": self.inputs,
            "headstart.workspace": self.workspace,
            "mlflow.user": _user(),
            "mlflow.source.name": "dvc.yaml",
            "mlflow.source.type": "LOCAL",
        }
        return self.client.create_run(
            self.experiment,
            start_time=started_ms,
            tags=tags | git_tags(self.root),
            run_name=f"{title} ({earlier + 1})" if earlier else title,
        )

    def log_stage(self, run: "Run", name: str, digest: str) -> None:
        """Log one stage's files. Repeating it after a partial failure gives the same run."""
        from mlflow.entities import Metric, Param

        run_id = run.info.run_id
        folder = self.root / "stages" / name
        values = stage_results.flat_params(self.params) | stage_results.weights_params(folder)
        params = [Param(key, value) for key, value in values.items()]
        for start in range(0, len(params), 100):  # MLflow's limits for one batch: 100 params, 1000 metrics
            self.client.log_batch(run_id, params=params[start : start + 100], synchronous=True)
        metrics = [
            Metric(point.key, point.value, point.time, point.step)
            for point in stage_results.metric_points(name, folder)
        ]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000], synchronous=True)
        if (folder / "annotations.json").is_file():
            self._log_dataset(run_id, folder)
        if (self.root / "params.yaml").is_file():
            self.client.log_artifact(run_id, str(self.root / "params.yaml"))
        for path in stage_results.artifact_paths(folder):
            self.client.log_artifact(run_id, str(path), artifact_path=name)
        if (folder / "labels.json").is_file():
            registry.log_model(self.client, run, folder)
        # The tag is written last: its presence means that the run holds all of the stage.
        self.client.set_tag(run_id, STAGE_TAG_PREFIX + name, digest)

    def _log_dataset(self, run_id: str, folder: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        counts = folder / "metrics.json"
        dataset = Dataset(
            name=stage_results.dataset_name(self.params),
            digest=sha256_file(folder / "annotations.json")[:36],  # the width of MLflow's column
            source_type="local",
            source='{"uri": "stages/fetch/annotations.json"}',
            profile=counts.read_text(encoding="utf-8") if counts.is_file() else None,
        )
        self.client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _runs_of_variant(self) -> "list[Run]":
        runs = self._search({"headstart.inputs": self.inputs})
        return [run for run in runs if run.data.tags.get("headstart.variant") == self.variant]

    def _search(self, tags: dict[str, str]) -> "list[Run]":
        """Runs of this workspace, newest first."""
        tags = {"headstart.workspace": self.workspace} | tags
        return self.client.search_runs(
            [self.experiment],
            " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items()),
            order_by=["attributes.start_time DESC"],
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id may have no name
        return "unknown"


def _one_line(message: str) -> str:
    """The message without line breaks, and without the password of a tracking URI."""
    return re.sub(r"//[^/@\s]+@", "//…@", " ".join(message.split()))[:200]
