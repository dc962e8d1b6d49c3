"""The pipeline's MLflow run: one run is one variant (params and data), whichever stages DVC executes for it.

Files come first: a stage finishes its work on disk, then this module records what lies there, and a failure to record
is one warning. DVC does not execute cached stages, so a stage also records what its upstream stages left in stages/
and the run lacks. Downstream stages are recorded only where their files are this variant's too: a run of another
variant holds the same results of them, and they follow from the same params, code and upstream results, so that DVC
skips them.

A row is a result. A run is resumed only while the files on disk agree with what it holds, otherwise a new one begins.
A stage whose results a run of the same inputs holds already begins none. This state is kept in tags:

    headstart.variant               DVC's experiment name, or the same as inputs
    headstart.inputs                hash of params.yaml and data.dvc
    headstart.workspace             hash of the user and the repository's folder
    headstart.stage.<stage>         hash of the stage's results, written when all of them are in the run
    headstart.stage_inputs.<stage>  hash of what they follow from
    headstart.stage_files.<stage>   hash of the files that are artifacts
    headstart.replayed              stages that were not executed for this run: their results are DVC's

A run is FINISHED when the results of all stages are in it, RUNNING before, FAILED or KILLED after a stage that was.
Between two stages no process is left to end a run: one that is left RUNNING becomes KILLED when the next one begins.
`headstart.progress` is the last stage recorded.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.params.root import Params
from headstart.tracking import registry, run_context, stage_results
from headstart.tracking.masking import mask_message
from headstart.tracking.stage_graph import PIPELINE_STAGES, STAGE_DEPENDENCIES, upstream_stages
from headstart.tracking.stage_inputs import stage_inputs
from headstart.tracking.store import tracking_uri
from headstart.tracking.variant_runs import INPUTS_TAG_PREFIX, PROGRESS_TAG, STAGE_TAG_PREFIX, VariantRuns

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@dataclass(frozen=True)
class StageFailure:
    """Why a stage did not finish. `user_error`: a UserError, whose message is one line for the user."""

    reason: str
    interrupted: bool = False
    user_error: bool = False


def record_stage(
    name: str,
    params: Params,
    root: Path,
    started_ms: int,
    failure: StageFailure | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Record a stage in the pipeline's MLflow run; an error is printed as one warning.

    Args:
        name: the stage.
        params: of this execution.
        root: the repository root.
        started_ms: when it started, in milliseconds since 1970.
        failure: why it did not finish; None if it did.
        environment: of `describe_environment`.
    """
    assert name in STAGE_DEPENDENCIES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MLflow and its imports; the user can fix none of them
            action = f"record {name}"
            recorded = _record_stage(name, params, root, started_ms, failure, environment or {})
            if recorded and name == "export" and params.export.register_as:
                action = "register the export"
                print(f"MLflow: {registry.register_model(*recorded, params, root)}", file=sys.stderr)
    except Exception as error:  # whatever goes wrong in MLflow, the stage itself has succeeded
        reason = _one_line(_describe_error(error, params), params)
        print(f"warning: MLflow did not {action}: {reason}{'' if failure else recorded_later(name)}", file=sys.stderr)


def recorded_later(name: str) -> str:
    """The end of a warning that a stage is not recorded: what records it, though DVC does not run it again."""
    if name == PIPELINE_STAGES[-1]:
        return "; once that works, `dvc repro -f -s export` records all stages"
    return "; the stage's own files are complete, and the next stage records them too"


def _record_stage(
    name: str,
    params: Params,
    root: Path,
    started_ms: int,
    failure: StageFailure | None,
    environment: Mapping[str, str],
) -> "tuple[MlflowClient, Run] | None":
    """The store and the run that holds the stage; None if it failed."""
    runs = VariantRuns.connect(params, root)
    digests = {stage: stage_results.results_digest(root / "stages" / stage) for stage in [*upstream_stages(name), name]}
    digests = {stage: digest for stage, digest in digests.items() if digest and not (failure and stage == name)}
    run = runs.find_resumable_run(name, digests)
    if not run and not failure and (same := runs.find_run_with_results(digests)):
        if runs.refresh_stage(same, name, stage_inputs(name, params, root, digests)):
            run_context.log_code(runs, same)
        print(f"MLflow: run {same.info.run_name!r} already holds these results of {name}", file=sys.stderr)
        return runs.client, same

    if failure and failure.user_error and not digests:
        return None  # a typo before the first stage has finished is no experiment
    run = run or runs.new_run(started_ms)
    digests |= {} if failure else _unchanged_downstream(runs, run, digests)
    missing = [stage for stage in digests if STAGE_TAG_PREFIX + stage not in run.data.tags]
    for stage in missing:
        runs.log_stage(run, stage, digests[stage], stage_inputs(stage, params, root, digests))
    run_context.log_context(runs, run, name, digests, replayed=set(missing) - {name}, environment=environment)
    recorded = {*digests, *(stage for stage in PIPELINE_STAGES if STAGE_TAG_PREFIX + stage in run.data.tags)}
    _set_status(runs, run, name, failure, complete=recorded == set(PIPELINE_STAGES))
    return None if failure else (runs.client, run)


def _unchanged_downstream(runs: VariantRuns, run: "Run", digests: Mapping[str, str]) -> dict[str, str]:
    """Stages that DVC skips from here on, because an edit had no effect, and the hashes of their results.

    Args:
        runs: of this variant.
        run: of this stage.
        digests: of the stage and of those before it.
    """
    tags = {STAGE_TAG_PREFIX + stage: digest for stage, digest in digests.items()}
    others = [other for other in runs.search(tags) if other.info.run_id != run.info.run_id]
    found = dict(digests)
    for stage in PIPELINE_STAGES if others else ():
        if stage in found or not set(STAGE_DEPENDENCIES[stage]) <= set(found):
            continue
        digest = stage_results.results_digest(runs.folder(stage))
        inputs = stage_inputs(stage, runs.params, runs.root, found)
        wanted = {STAGE_TAG_PREFIX + stage: digest, INPUTS_TAG_PREFIX + stage: inputs}
        if digest and inputs and any(wanted.items() <= other.data.tags.items() for other in others):
            found[stage] = digest
    return {stage: digest for stage, digest in found.items() if stage not in digests}


def _set_status(runs: VariantRuns, run: "Run", name: str, failure: StageFailure | None, *, complete: bool) -> None:
    outcome = f"failed: {_one_line(failure.reason, runs.params)}" if failure else "done"
    runs.client.set_tag(run.info.run_id, PROGRESS_TAG, f"{name} {outcome}")
    if failure:
        runs.client.set_terminated(run.info.run_id, "KILLED" if failure.interrupted else "FAILED")
    elif complete:
        runs.client.set_terminated(run.info.run_id, "FINISHED")
    else:
        runs.client.update_run(run.info.run_id, status="RUNNING")


def _describe_error(error: BaseException, params: Params) -> str:
    """The error, of a connection without the libraries' words around it; the address first, where one is given."""
    key = "MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "tracking.uri"
    where = f"{key}: {uri}: " if (uri := tracking_uri(params.tracking)) else ""
    cause: BaseException | None = error
    while cause is not None:
        reason = getattr(cause, "reason", None)  # of urllib3's MaxRetryError
        if isinstance(reason, Exception):
            return where + (str(reason).partition(": ")[2] or str(reason))
        if isinstance(original := getattr(cause, "orig", None), Exception):  # of SQLAlchemy's DBAPIError
            return where + str(original)
        cause = cause.__cause__ or cause.__context__
    return where + (str(error) or type(error).__name__)


def _one_line(message: str, params: Params) -> str:
    """The message without line breaks, and without the password of a tracking address."""
    return mask_message(" ".join(message.split()), [tracking_uri(params.tracking), params.tracking.uri])[:300]
