"""The MLflow runs of one variant in one workspace: found, begun, and filled with the files of stages."""

import getpass
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.files import sha256_file
from headstart.params.root import Params
from headstart.tracking import registry, stage_metrics, stage_results
from headstart.tracking.run_names import describe_difference
from headstart.tracking.store import connect_store, get_experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STAGE_TAG_PREFIX = "headstart.stage."
INPUTS_TAG_PREFIX = "headstart.stage_inputs."
FILES_TAG_PREFIX = "headstart.stage_files."
KEPT_TAG = "headstart.kept"
PROGRESS_TAG = "headstart.progress"


@dataclass(frozen=True)
class VariantRuns:
    """The MLflow runs of one variant in one workspace.

    Attributes:
        client: of the store.
        experiment: its id.
        params: of this execution.
        root: the folder that the stages work in.
        workspace: hash of the user and the repository's folder.
        inputs: hash of params.yaml and data.dvc.
        variant: DVC's experiment name, or the same as `inputs`.
    """

    client: "MlflowClient"
    experiment: str
    params: Params
    root: Path
    workspace: str
    inputs: str
    variant: str

    @classmethod
    def connect(cls, params: Params, root: Path) -> "VariantRuns":
        """Connect to the store; the experiment is created at first use."""
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

    def folder(self, stage: str) -> Path:
        """A stage's results."""
        return self.root / "stages" / stage

    def find_run_with_results(self, digests: Mapping[str, str]) -> "Run | None":
        """A run of these inputs that holds all these results."""
        return next(iter(self.search({"headstart.inputs": self.inputs} | _stage_tags(digests))), None)

    def find_resumable_run(self, name: str, digests: Mapping[str, str]) -> "Run | None":
        """The newest run of this variant that lacks the stage and agrees with the results on disk."""
        params = self._params_of(digests)
        for run in self._runs_of_variant():
            tags = run.data.tags
            agrees = all(tags.get(STAGE_TAG_PREFIX + stage, digest) == digest for stage, digest in digests.items())
            # MLflow's params cannot change, and some are facts of a machine.
            agrees = agrees and all(run.data.params.get(key, value) == value for key, value in params.items())
            if agrees and STAGE_TAG_PREFIX + name not in tags:
                return run
        return None

    def new_run(self, started_ms: int) -> "Run":
        """Begin a run. Of this workspace no other one goes on, but for DVC's experiments, which run side by side."""
        for run in self.search({}, "attributes.status = 'RUNNING'"):
            if run.data.tags.get("headstart.variant") == run.data.tags.get("headstart.inputs"):
                self.client.set_tag(run.info.run_id, PROGRESS_TAG, "left unfinished: a later run began")
                self.client.set_terminated(run.info.run_id, "KILLED")
        earlier = len(self._runs_of_variant())
        title = os.environ.get("DVC_EXP_NAME") or self._title()
        tags = {
            "headstart.variant": self.variant,
            "headstart.inputs": self.inputs,
            "headstart.workspace": self.workspace,
            "mlflow.user": _user(),
            "mlflow.source.name": "dvc.yaml",
            "mlflow.source.type": "LOCAL",
        }
        name = f"{title} ({earlier + 1})" if earlier else title
        return self.client.create_run(self.experiment, start_time=started_ms, tags=tags, run_name=name)

    def log_stage(self, run: "Run", name: str, digest: str, inputs: str) -> None:
        """Log one stage's files. Repeating it after a partial failure gives the same run.

        Args:
            run: that lacks the stage.
            name: the stage.
            digest: hash of its results.
            inputs: hash of what they follow from.
        """
        from mlflow.entities import Metric, Param

        run_id, folder = run.info.run_id, self.folder(name)
        params = [Param(key, value) for key, value in self._params_of([name]).items()]
        for start in range(0, len(params), 100):  # MLflow's limits for one batch: 100 params, 1000 metrics
            self.client.log_batch(run_id, params=params[start : start + 100], synchronous=True)
        metrics = [
            Metric(point.key, point.value, point.time, point.step)
            for point in stage_metrics.metric_points(name, folder)
        ]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000], synchronous=True)
        if (folder / "annotations.json").is_file():
            self._log_dataset(run_id, folder)
        if (folder / "labels.json").is_file():
            registry.log_model(self.client, run, folder)
        if name == "fine-tune" and (kept := stage_metrics.kept_model(folder)):
            self.client.set_tag(run_id, KEPT_TAG, kept)
        self._log_files(run_id, name, inputs)
        # The tag is written last: its presence means that the run holds all of the stage.
        self.client.set_tag(run_id, STAGE_TAG_PREFIX + name, digest)

    def refresh_stage(self, run: "Run", name: str, inputs: str) -> bool:
        """Replace the files of a stage whose results a run holds already: its report may be of another template.

        Args:
            run: that holds the results.
            name: the stage.
            inputs: hash of what they follow from, which may be other code now.

        Returns:
            whether something differed.
        """
        from mlflow.entities import Metric

        tags, folder = run.data.tags, self.folder(name)
        files = stage_results.artifacts_digest(folder)
        if (tags.get(FILES_TAG_PREFIX + name, ""), tags.get(INPUTS_TAG_PREFIX + name, "")) == (files, inputs):
            return False
        points = stage_metrics.summary_points(name, folder)
        # Such as the milliseconds a picture takes, which stand in the model card too.
        metrics = [Metric(p.key, p.value, p.time, p.step) for p in points if run.data.metrics.get(p.key) != p.value]
        if metrics and not (folder / "history.csv").is_file():
            self.client.log_batch(run.info.run_id, metrics=metrics, synchronous=True)
        self._log_files(run.info.run_id, name, inputs)
        return True

    def _log_files(self, run_id: str, name: str, inputs: str) -> None:
        folder = self.folder(name)
        for path in stage_results.artifact_paths(folder):
            self.client.log_artifact(run_id, str(path), artifact_path=name)
        for prefix, value in {
            FILES_TAG_PREFIX: stage_results.artifacts_digest(folder),
            INPUTS_TAG_PREFIX: inputs,
        }.items():
            if value:
                self.client.set_tag(run_id, prefix + name, value)

    def _params_of(self, stages: Iterable[str]) -> dict[str, str]:
        """params.yaml, and the facts that some stages found, as a run's params."""
        values = stage_results.flat_params(self.params)
        for stage in stages:
            values |= stage_results.weights_params(self.folder(stage))
            values |= stage_metrics.constant_params(stage, self.folder(stage))
        return values

    def _title(self) -> str:
        """What differs from the first run of this workspace; of the first one the network."""
        if first := self.search({}, newest_first=False, most=1):
            difference = describe_difference(stage_results.flat_params(self.params), first[0].data.params)
            if difference or first[0].data.tags.get("headstart.inputs") != self.inputs:
                return difference or f"other data {self.inputs[:6]}"
        return f"{self.params.model.backbone or self.params.model.detector} {self.inputs[:6]}"

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
        runs = self.search({"headstart.inputs": self.inputs})
        return [run for run in runs if run.data.tags.get("headstart.variant") == self.variant]

    def search(
        self, tags: Mapping[str, str], condition: str = "", *, newest_first: bool = True, most: int = 1000
    ) -> "list[Run]":
        """Runs of this workspace.

        Args:
            tags: that they have.
            condition: on something else, in MLflow's search syntax.
            newest_first: their order; False: the oldest comes first.
            most: how many, at most.
        """
        conditions = [
            f"tags.`{key}` = '{value}'" for key, value in {"headstart.workspace": self.workspace, **tags}.items()
        ]
        return self.client.search_runs(
            [self.experiment],
            " and ".join([*conditions, *filter(None, [condition])]),
            order_by=[f"attributes.start_time {'DESC' if newest_first else 'ASC'}"],
            max_results=most,
        )


def _stage_tags(digests: Mapping[str, str]) -> dict[str, str]:
    return {STAGE_TAG_PREFIX + stage: digest for stage, digest in digests.items()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id may have no name
        return "unknown"
