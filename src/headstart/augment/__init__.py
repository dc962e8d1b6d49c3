"""The augment stage, and the random transforms of pictures and boxes that training uses too."""

__all__ = ["box_transforms", "stage", "transforms"]
