"""Features of the frozen backbone: run once a picture, cached by content."""

__all__ = ["embeddings", "split_detector", "split_network"]
