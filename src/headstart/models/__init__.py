"""Networks: pretrained weights, classifier, detectors and their heads, frozen blocks, the model file."""

__all__ = ["backbone", "classifier", "detector", "file", "freeze", "heads", "pretrained", "pyramid", "weights"]
