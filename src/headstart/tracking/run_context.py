"""What a run holds beside its stages' results: code, machine, params.yaml, dvc.lock, and the table of many labels."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from headstart.tracking import environment as machine
from headstart.tracking.git_tags import DIRTY_TAG, git_patch, git_tags
from headstart.tracking.masking import mask_addresses
from headstart.tracking.per_label import SLICES_ARTIFACT, TABLE_ARTIFACT, label_table
from headstart.tracking.pipeline_files import data_md5, read_pipeline_files
from headstart.tracking.stage_graph import PIPELINE_STAGES
from headstart.tracking.stage_metrics import label_figures, slice_figures
from headstart.tracking.store import tracking_uri
from headstart.tracking.variant_runs import VariantRuns

if TYPE_CHECKING:
    from mlflow.entities import Run

PATCH_ARTIFACT = "diff.patch"
DATA_TAG = "headstart.data.md5"
REPLAYED_TAG = "headstart.replayed"


def log_context(
    runs: VariantRuns,
    run: "Run",
    name: str,
    recorded: Collection[str],
    *,
    replayed: Collection[str],
    environment: Mapping[str, str],
) -> None:
    """Log tags and files that are of no single stage; each stage replaces those of the stage before it.

    Args:
        runs: of the run's variant.
        run: which one.
        name: the stage that was executed.
        recorded: the stages whose results are in the run.
        replayed: those of them that no execution for this run made, recorded now.
        environment: of `describe_environment`.
    """
    log_code(runs, run)
    before, done = run.data.tags, set(recorded) - {name}
    tags = {DATA_TAG: data_md5(runs.root, done)}
    order = {*before.get(REPLAYED_TAG, "").split(", "), *replayed}
    tags |= {REPLAYED_TAG: ", ".join(stage for stage in PIPELINE_STAGES if stage in order)}
    for key, value in environment.items():
        tag = machine.TAG_PREFIX + key
        tags[tag] = machine.merge_tag(before.get(tag), name, value)
    files = read_pipeline_files(runs.root, done)
    stages = [stage for stage in PIPELINE_STAGES if stage in recorded]
    of_labels = [figure for stage in stages for figure in label_figures(stage, runs.folder(stage))]
    of_slices = [figure for stage in stages for figure in slice_figures(stage, runs.folder(stage))]
    files |= {TABLE_ARTIFACT: label_table(of_labels)} if of_labels else {}
    files |= {SLICES_ARTIFACT: label_table(of_slices, "slice")} if of_slices else {}
    _log(runs, run, tags, files)


def log_code(runs: VariantRuns, run: "Run") -> None:
    """Log the commit and, where the code differs from it, that and the difference."""
    tags, patch = git_tags(runs.root), git_patch(runs.root)
    if run.data.tags.get(DIRTY_TAG) == "true":  # one of the stages before
        tags[DIRTY_TAG] = "true"
    _log(runs, run, tags, {PATCH_ARTIFACT: patch} if patch else {})


def _log(runs: VariantRuns, run: "Run", tags: Mapping[str, str], files: Mapping[str, str]) -> None:
    for tag, value in tags.items():
        if value and run.data.tags.get(tag) != value:
            runs.client.set_tag(run.info.run_id, tag, value)
    known = [tracking_uri(runs.params.tracking), runs.params.tracking.uri]
    for file, text in files.items():
        masked = text if file in (TABLE_ARTIFACT, SLICES_ARTIFACT) else mask_addresses(text, known)
        runs.client.log_text(run.info.run_id, masked, file)
