"""The MLflow run of this pipeline: one run is one variant, whichever stages DVC executes for it.

Files are the truth. A stage first finishes its work on disk; then this module records what lies there, and a failure
to record is one warning. DVC does not execute cached stages, so a stage also records what the stages before it left
in stages/ and the run lacks. Stages after it are left alone: their files may be those of another variant.

A row is a result. A run goes on only while the disk agrees with what it holds, otherwise a new one begins; and a
stage that gives only what a run holds already adds nothing, because DVC then skips the stages after it, and a run
begun here would never be complete. These tags carry it:

    headstart.variant         the experiment's name, or the same as inputs
    headstart.inputs          hash of params.yaml and data.dvc
    headstart.workspace       hash of the user and the repository's folder
    headstart.stage.<stage>   hash of the stage's results, written when they are all in the run

After each stage the run is FINISHED, not only after export: between two stages no process is left to end it, and a
pipeline that was killed would seem to run for ever. `headstart.progress` says how far it came.
"""

import getpass
import hashlib
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import files, mlflow_store, records, registry
from headstart.params import Params

if TYPE_CHECKING:
    from mlflow.entities import Run
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


@dataclass(frozen=True)
class Failure:
    """How a stage ended that did not finish; `mistake`: the user's, told in one line."""

    reason: str
    interrupted: bool = False
    mistake: bool = False


def record(name: str, params: Params, root: Path, began: int, failure: Failure | None = None) -> None:
    """Record a stage in the pipeline's MLflow run; what goes wrong is one warning.

    Args:
        name: the stage.
        params: what it ran with.
        root: the repository root.
        began: when, in milliseconds since 1970.
        failure: why it did not finish; None if it did.
    """
    assert name in NEEDS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow and what it imports; the user can mend none of it
            doing = f"record {name}"
            recorded = _record(name, params, root, began, failure)
            if recorded and name == "export" and params.export.register_as:
                doing = "register the export"
                print(f"MLflow: {registry.publish(*recorded, params, root)}", file=sys.stderr)
    except Exception as error:  # whatever a tracker can do wrong, training has been done right
        print(f"warning: MLflow did not {doing}: {_one_line(str(error)) or type(error).__name__}", file=sys.stderr)


def warm_up() -> None:
    """Import what recording will need."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow_store.warm_up()


def upstream(name: str) -> list[str]:
    """All stages whose results a stage rests on, in pipeline order."""
    needed = {name}
    for candidate in reversed(STAGES):
        if candidate in needed:
            needed.update(NEEDS[candidate])
    return [candidate for candidate in STAGES if candidate in needed and candidate != name]


def _record(
    name: str, params: Params, root: Path, began: int, failure: Failure | None
) -> "tuple[MlflowClient, Run] | None":
    """The store and the run that holds the stage; None if it failed."""
    pipeline = _Pipeline.connect(params, root)
    digests = {each: records.digest(root / "stages" / each) for each in [*upstream(name), name]}
    digests = {each: digest for each, digest in digests.items() if digest and not (failure and each == name)}
    run = pipeline.run_to_go_on(name, digests)
    if not run and not failure and (other := pipeline.run_holding(digests)):
        print(f"MLflow: run {other.info.run_name!r} already holds these results of {name}", file=sys.stderr)
        return pipeline.client, other

    if failure and failure.mistake and not digests:
        return None  # a word misspelt at the start of it all is no experiment
    run = run or pipeline.new_run(began)
    for each, digest in digests.items():
        if STAGE_TAG + each not in run.data.tags:
            pipeline.log_stage(run, each, digest)
    ending = f"failed: {_one_line(failure.reason)}" if failure else "done"
    pipeline.client.set_tag(run.info.run_id, "headstart.progress", f"{name} {ending}")
    status = "FINISHED" if not failure else "KILLED" if failure.interrupted else "FAILED"
    pipeline.client.set_terminated(run.info.run_id, status)
    return None if failure else (pipeline.client, run)


@dataclass(frozen=True)
class _Pipeline:
    """One variant in one workspace, and the store that its runs are in."""

    client: "MlflowClient"
    experiment: str
    params: Params
    root: Path
    workspace: str
    inputs: str
    variant: str

    @classmethod
    def connect(cls, params: Params, root: Path) -> "_Pipeline":
        # The repository's root, also while `root` is the copy under .dvc/tmp that `dvc exp run --temp` works in.
        home = Path(os.environ.get("DVC_ROOT") or root).resolve()
        client = mlflow_store.connect(params.tracking, home)
        inputs = records.inputs_digest(params, root)
        return cls(
            client=client,
            experiment=mlflow_store.experiment(client, params.tracking, home),
            params=params,
            root=root,
            workspace=hashlib.sha256(f"{_user()} {home}".encode()).hexdigest()[:16],
            inputs=inputs,
            variant=os.environ.get("DVC_EXP_NAME") or inputs,
        )

    def run_holding(self, digests: dict[str, str]) -> "Run | None":
        """A run of this workspace, whatever its variant, that holds all these results."""
        return next(iter(self._search({STAGE_TAG + each: digest for each, digest in digests.items()})), None)

    def run_to_go_on(self, name: str, digests: dict[str, str]) -> "Run | None":
        """The newest run of this variant that lacks the stage and contradicts nothing on disk."""
        for run in self._runs_of_variant():
            tags = run.data.tags
            agrees = all(tags.get(STAGE_TAG + each, digest) == digest for each, digest in digests.items())
            if agrees and STAGE_TAG + name not in tags:
                return run
        return None

    def new_run(self, began: int) -> "Run":
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
            start_time=began,
            tags=tags | _git_tags(self.root),
            run_name=f"{title} ({earlier + 1})" if earlier else title,
        )

    def log_stage(self, run: "Run", name: str, digest: str) -> None:
        """Put one stage's files into the run. Doing it again after half of it failed gives the same run."""
        from mlflow.entities import Metric, Param

        run_id = run.info.run_id
        folder = self.root / "stages" / name
        settings = records.flat_params(self.params) | records.weights_params(folder)
        pairs = [Param(key, value) for key, value in settings.items()]
        for start in range(0, len(pairs), 100):  # MLflow's limits for one batch: 100 params, 1000 metrics
            self.client.log_batch(run_id, params=pairs[start : start + 100], synchronous=True)
        metrics = [Metric(point.key, point.value, point.time, point.step) for point in records.points(name, folder)]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000], synchronous=True)
        if (folder / "annotations.json").is_file():
            self._log_dataset(run_id, folder)
        if (self.root / "params.yaml").is_file():
            self.client.log_artifact(run_id, str(self.root / "params.yaml"))
        for path in records.artifacts(folder):
            self.client.log_artifact(run_id, str(path), artifact_path=name)
        if (folder / "labels.json").is_file():
            registry.log(self.client, run, folder)
        # The tag is written last: its presence means that the run holds the whole stage.
        self.client.set_tag(run_id, STAGE_TAG + name, digest)

    def _log_dataset(self, run_id: str, folder: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        counts = folder / "metrics.json"
        dataset = Dataset(
            name=records.dataset_name(self.params),
            digest=files.sha256(folder / "annotations.json")[:36],  # all that MLflow's column holds
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
        wanted = {"headstart.workspace": self.workspace} | tags
        return self.client.search_runs(
            [self.experiment],
            " and ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items()),
            order_by=["attributes.start_time DESC"],
        )


def _git_tags(root: Path) -> dict[str, str]:
    """The commit in MLflow's own tag, and whether the code differs from it; what the pipeline writes does not count."""
    if not (commit := _git(root, "rev-parse", "HEAD")):
        return {}
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!stages", ":!dvc.lock")
    return {"mlflow.source.git.commit": commit, "headstart.dirty": str(bool(changed)).lower()}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "unknown"


def _one_line(message: str) -> str:
    """The message without line breaks, and without the password of a tracking URI."""
    return re.sub(r"//[^/@\s]+@", "//…@", " ".join(message.split()))[:200]
