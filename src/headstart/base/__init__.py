"""What every wing rests on: the COCO manifest, files, errors, progress, parallel work, cache, processes."""

__all__ = [
    "arrays",
    "cache_dir",
    "detections",
    "distributed",
    "errors",
    "files",
    "manifest",
    "memory",
    "parallel",
    "progress",
    "reproduce",
]
