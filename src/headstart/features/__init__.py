"""Features of the frozen backbone: run once a picture, cached by content."""

__all__ = ["embeddings", "fingerprints", "frozen_backbone", "row_cache", "split_detector", "split_network"]
