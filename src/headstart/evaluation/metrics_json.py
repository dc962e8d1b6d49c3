"""metrics.json: both models' metrics with their intervals, in the layout that `dvc metrics` and MLflow read."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from headstart.metrics.bootstrap import Estimate

METRIC_DIGITS = 6  # decimals; in those beyond them the arithmetic of two machines differs

ModelMetricsT = TypeVar("ModelMetricsT")
ModelMetricsT_co = TypeVar("ModelMetricsT_co", covariant=True)


class Evaluation(Protocol[ModelMetricsT_co]):
    """Metrics of both models on the same pictures, and the difference, fine-tuned minus head-only."""

    @property
    def head_only(self) -> ModelMetricsT_co: ...
    @property
    def fine_tuned(self) -> ModelMetricsT_co: ...
    @property
    def difference(self) -> Estimate: ...


def metrics_json(
    evaluation: Evaluation[ModelMetricsT],
    model_metrics: Callable[[ModelMetricsT], Mapping[str, object]],
    difference_name: str,
    vain_lr: float = 0.0,
) -> dict[str, dict[str, object]]:
    """metrics.json of either task.

    Args:
        evaluation: of both models.
        model_metrics: one model's metrics as JSON.
        difference_name: the metric that `evaluation.difference` is of.
        vain_lr: as in ReportFacts.

    Returns:
        `test` (the fine-tuned model), `head_only` and `difference`; instead of the latter `kept_head` where fine-tuning
        made nothing better: both are one model then, and a model has no difference from itself.
    """
    metrics: dict[str, dict[str, object]] = {
        "test": dict(model_metrics(evaluation.fine_tuned)),
        "head_only": dict(model_metrics(evaluation.head_only)),
    }
    if vain_lr:
        return metrics | {"kept_head": {"lr": vain_lr}}
    return metrics | {"difference": dict(estimate_json(difference_name, evaluation.difference))}


def estimates_json(estimates: Mapping[str, Estimate]) -> dict[str, float | str]:
    """`estimate_json` of several metrics, in one dictionary."""
    return {key: value for name, e in estimates.items() for key, value in estimate_json(name, e).items()}


def estimate_json(name: str, estimate: Estimate) -> dict[str, float | str]:
    """A metric as `<name>`, `<name>_low` and `<name>_high`.

    `<name>_absent` is the reason where it is undefined; `<name>_note` why it has no interval, or one that may not hold.
    """
    if estimate.value is None:
        return {f"{name}_absent": estimate.absent}
    found = rounded({name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high})
    return found | ({f"{name}_note": estimate.note} if estimate.note else {})


def rounded(values: Mapping[str, float | None]) -> dict[str, float | str]:
    """Values with METRIC_DIGITS decimals; undefined ones are left out."""
    return {key: round(value, METRIC_DIGITS) for key, value in values.items() if value is not None}
