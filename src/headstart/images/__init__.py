"""Picture files: decoding and validation, near-duplicates, boxes drawn on them; generated pictures. No torch."""

__all__ = [
    "decode",
    "draw_boxes",
    "foreign_pictures",
    "links",
    "oriented_hash",
    "picture_files",
    "thumbnail",
]
