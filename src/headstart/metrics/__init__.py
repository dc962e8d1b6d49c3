"""Arrays in, numbers out: classification and detection metrics, calibration, thresholds, bootstrap intervals."""

__all__ = [
    "bootstrap",
    "calibration",
    "classification",
    "coco_matching",
    "detection",
    "label_overlap",
    "source_bias",
    "threshold",
]
