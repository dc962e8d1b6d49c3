"""params.yaml as typed, checked, frozen sections, a module for each part of the file."""

__all__ = ["fetch", "reader", "root", "training"]
