"""The fetch stage: pictures from every kind of source, validated and hashed, in one manifest."""

__all__ = ["outside", "stage"]
