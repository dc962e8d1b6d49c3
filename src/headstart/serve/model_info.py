"""An exported model's folder and the evaluation beside it -> `ModelInfo`: labels, test metrics, confusion matrix."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from headstart.base.files import read_csv, read_json
from headstart.serve.examples import ExampleFile
from headstart.serve.schema import ConfusionColumn, Example, MetricEstimate, ModelInfo

# Keys of metrics.json that the page shows -> their names there.
_METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "AP": "AP",
    "AP50": "AP at IoU 0.5",
}


def load_model_info(model: Path, examples: Sequence[ExampleFile]) -> ModelInfo:
    """The response of /model.

    Args:
        model: the exported model's folder; the evaluation is looked for beside it.
        examples: as `find_examples` returns them.
    """
    labels, evaluation = read_json(model / "labels.json"), model.parent / "evaluate"
    metrics = read_json(evaluation / "metrics.json")["test"] if (evaluation / "metrics.json").is_file() else {}
    int8 = read_json(model / "parity.json").get("int8", {}) if (model / "parity.json").is_file() else {}
    card = model / "model_card.md"
    return ModelInfo(
        task=labels["task"],
        labels=labels["labels"],
        input=labels["input"],
        class_agnostic_nms=labels.get("class_agnostic_nms", False),
        metrics=_metric_estimates(metrics, int8),
        pictures=metrics.get("pictures", 0),
        outcomes=metrics.get("outcomes", {}),
        confusion=_count_confusions(_read_confusion_pairs(evaluation / "plots/confusion.csv")),
        examples=[
            Example(
                picture=example.picture,
                thumbnail=example.thumbnail,
                label=example.label,
                predicted=example.predicted,
                confidence=example.confidence,
                mistake=example.mistake,
                credit=example.credit,
            )
            for example in examples
        ],
        threshold=labels.get("threshold", 0.5),
        unknown_above=labels.get("unknown", {}).get("threshold"),
        set_thresholds=labels.get("prediction_sets", {}).get("thresholds"),
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
    )


def _metric_estimates(metrics: Mapping[str, float], int8: Mapping[str, float]) -> list[MetricEstimate]:
    """The metrics on the test set: of the served int8 file where it was measured, else of the fp32 model, noted so."""
    estimates = []
    for key, name in _METRIC_NAMES.items():
        if key not in metrics:
            continue
        is_own = f"{key}_low" in int8
        values = int8 if is_own else metrics
        note = f"fp32: {int8[f'{key}_fp32']:.3f}" if is_own else "of the fp32 model" if int8 else ""
        # Without an interval (a single unit of pictures) a share is known to lie between 0 and 1.
        low, high = values.get(f"{key}_low", 0.0), values.get(f"{key}_high", 1.0)
        estimates.append(MetricEstimate(name=name, value=values[key], low=low, high=high, note=note))
    return estimates


def _read_confusion_pairs(path: Path) -> list[tuple[str, str]]:
    """Actual and predicted label of every test picture, or of every box of a detector; empty if there is no file."""
    return [(row["actual"], row["predicted"]) for row in read_csv(path)] if path.is_file() else []


def _count_confusions(pairs: Sequence[tuple[str, str]]) -> dict[str, ConfusionColumn]:
    """The confusion matrix by predicted label; in each column the most frequent actual label first."""
    columns: dict[str, Counter[str]] = {}
    for actual, predicted in pairs:
        columns.setdefault(predicted, Counter())[actual] += 1
    return {
        predicted: ConfusionColumn(total=counts.total(), actual=dict(counts.most_common()))
        for predicted, counts in sorted(columns.items())
    }
