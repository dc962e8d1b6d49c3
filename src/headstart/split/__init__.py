"""The split stage: train, val and test; groups and near-duplicates stay together."""

__all__ = ["stage"]
