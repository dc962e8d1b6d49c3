"""Arrays in, numbers out: classification and detection metrics, calibration, thresholds, intervals."""

__all__ = [
    "average_precision",
    "calibration",
    "calibration_error",
    "classification",
    "coco_matching",
    "conformal",
    "detection",
    "detection_slices",
    "estimate",
    "intervals",
    "label_overlap",
    "label_shares",
    "paired_test",
    "rejection",
    "slices",
    "source_bias",
    "strangeness",
    "threshold",
]
