"""Picture files: decoding and validation, near-duplicates, boxes drawn on them. No torch."""

__all__ = ["decode", "draw_boxes", "near_duplicates", "oriented_hash", "picture_files", "thumbnail"]
