"""JPEG segments, found without decoding (ITU T.81, annex B)."""

import re

# The next marker: 0xFF, then a byte that is neither part of the entropy-coded data (0x00 is stuffing, 0xD0 to 0xD7 are
# restart markers) nor fill (0xFF).
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
END_OF_IMAGE = 0xD9
# Markers of segments that have a length: frames and tables, scans, quantization, restart interval, APPn, comments.
SEGMENT_MARKERS = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})


def strip_scan_data(data: bytes) -> bytes | None:
    """A JPEG without its entropy-coded data: all segments up to the end marker.

    Returns:
        None where there is no end marker, or an uncommon segment comes before it.
    """
    segments, position = [data[:2]], 2
    while match := MARKER.search(data, position):
        marker, body = match[1][0], match.end()
        if marker == END_OF_IMAGE:
            return b"".join(segments) + match[0]
        if marker not in SEGMENT_MARKERS:
            return None
        position = body + int.from_bytes(data[body : body + 2], "big")
        segments.append(data[match.start() : position])
    return None
