"""Cross-validation: every picture is examined once, by a model that saw none of its unit; answers out of fold."""

__all__ = ["cross_validate", "figures", "out_of_fold"]
