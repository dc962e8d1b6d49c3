"""metrics.json: both models' metrics with their intervals, in the layout that `dvc metrics` and MLflow read."""

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from headstart.metrics.estimate import Estimate, estimate_json

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
