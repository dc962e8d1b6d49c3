"""Head training and fine-tuning: one loop, its batches, optimizer and checkpoints."""

__all__ = [
    "checkpoint",
    "classifier_batches",
    "detector_batches",
    "fine_tune",
    "head_fit",
    "loop",
    "lr_finder",
    "train_detector_head",
    "train_head",
]
