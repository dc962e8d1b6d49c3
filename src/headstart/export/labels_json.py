"""labels.json: labels and preprocessing, for whoever has the ONNX file alone."""

from headstart.models.file import ModelSpec


def labels_json(spec: ModelSpec, usage: str, **own: float) -> dict[str, object]:
    """The content of labels.json.

    Args:
        spec: of the network.
        usage: in words, from a picture to the outputs.
        own: the task's own: temperature; or threshold, and whether NMS is across labels.
    """
    return {
        "task": spec.task,
        "labels": list(spec.labels),
        "input": spec.input.model_dump(mode="json"),
        **own,
        "how": usage,
    }
