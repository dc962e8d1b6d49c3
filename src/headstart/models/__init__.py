"""Networks: pretrained weights, classifier, detectors and their heads, frozen blocks, the model file."""

__all__ = [
    "answer_rules",
    "backbone",
    "block_features",
    "classifier",
    "detector",
    "file",
    "freeze",
    "heads",
    "kernel_features",
    "pretrained",
    "pyramid",
    "strangeness_features",
    "torchvision_detectors",
    "weights",
]
