"""What every wing rests on: the COCO manifest, files, errors, progress, parallel work, cache, processes."""

__all__ = [
    "arrays",
    "cache_dir",
    "clip_boxes",
    "code_digest",
    "detections",
    "distributed",
    "errors",
    "files",
    "kept_head",
    "manifest",
    "memory",
    "one_line",
    "parallel",
    "progress",
    "reproduce",
    "stage_lock",
    "stored_picture",
    "threads",
    "units",
]
