"""MLflow: one run is one whole pipeline, whichever stages DVC executed."""

__all__ = ["recorder"]
