"""The segments of a JPEG file, without decoding it."""

import re

# A JPEG's next marker: 0xFF, and what follows it neither in the coded data (0, restarts) nor as filling (0xFF).
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
END_OF_IMAGE = 0xD9
SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})  # those that have a length


def skeleton(data: bytes) -> bytes | None:
    """The segments of a JPEG up to its end marker, without what is coded between them; None: there is no such end."""
    kept, place = [data[:2]], 2
    while found := MARKER.search(data, place):
        marker, body = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return b"".join(kept) + found[0]
        if marker not in SEGMENTS:
            return None
        place = body + int.from_bytes(data[body : body + 2], "big")
        kept.append(data[found.start() : place])
    return None
