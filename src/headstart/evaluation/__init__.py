"""The evaluate stage: both models on the test set; metrics, plots, gallery, report."""

__all__ = ["classifier", "detector", "slices", "stage"]
