"""labels.json: labels and preprocessing, for whoever has the ONNX file alone."""

import math

from headstart.metrics import conformal, strangeness
from headstart.models.answer_rules import AnswerRules
from headstart.models.file import ModelSpec


def labels_json(spec: ModelSpec, usage: str, **own: object) -> dict[str, object]:
    """The content of labels.json.

    Args:
        spec: of the network.
        usage: in words, from a picture to the outputs.
        own: the task's own: temperature and `rules_json`; or threshold, and whether NMS is across labels.
    """
    return {
        "task": spec.task,
        "labels": list(spec.labels),
        "input": spec.input.model_dump(mode="json"),
        **own,
        "how": usage,
    }


def rules_json(rules: AnswerRules) -> dict[str, object]:
    """`unknown` and `prediction_sets` of labels.json.

    A threshold of null: no picture is unknown. Thresholds of null: sets would hold all labels, so that the most
    probable one is named instead.
    """
    threshold = rules.threshold if math.isfinite(rules.threshold) else None
    return {
        "unknown": {"threshold": threshold, "method": strangeness.METHOD, "kept": strangeness.KEPT},
        "prediction_sets": {
            "confidence": rules.sets.confidence,
            "thresholds": rules.sets.thresholds.tolist() if rules.sets.thresholds.any() else None,
            "method": conformal.METHOD,
        },
    }
