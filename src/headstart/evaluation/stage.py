"""The evaluate stage: the head-only and the fine-tuned model on the test set."""

from collections.abc import Callable, Mapping
from pathlib import Path

from headstart.base.manifest import SPLITS, Manifest, Split, read_manifest
from headstart.evaluation.report_tables import counted
from headstart.evaluation.writer import Results, write_results
from headstart.params.root import Params

# The manifests of train, val and test, params, repository root -> what is written, and a summary in one line.
EvaluateModels = Callable[[Mapping[Split, Manifest], Params, Path], tuple[Results, str]]


def evaluate(params: Params, root: Path, evaluate_models: EvaluateModels) -> None:
    """Write stages/evaluate: metrics.json, predictions.json, plots/, gallery/, report.html.

    Args:
        params: all of params.yaml.
        root: the repository root.
        evaluate_models: the task's part: runs both models and computes their metrics.

    Raises:
        UserError: a file of an earlier stage is missing.
    """
    splits = {split: read_manifest(root / f"stages/split/{split}.json") for split in SPLITS}
    results, summary = evaluate_models(splits, params, root)
    write_results(root / "stages/evaluate", results)
    test = f"test {summary} on {counted(len(splits['test'].images), 'picture')}"
    print(f"evaluate: {results.lead}{test}; stages/evaluate/report.html")
