"""The received part of one file: in memory while it is small, then in a part file on disk."""

from pathlib import Path
from typing import BinaryIO


class PartialFile:
    """The bytes of a download until it is complete and verified.

    Most pictures never touch the disk before they are verified: creating a file costs more than receiving one.

    Attributes:
        size: bytes received so far.
    """

    def __init__(self, part: Path, in_memory: int = 0) -> None:
        """Begin with the bytes that `part` has already.

        Args:
            part: the file for what does not fit in memory; used by this object alone.
            in_memory: bytes up to which nothing is written; 0: all is, so that a killed process loses nothing.
        """
        self._part, self._in_memory = part, in_memory
        self._chunks: list[bytes] = []
        self._file: BinaryIO | None = None
        self.size = part.stat().st_size if part.exists() else 0

    def write(self, chunk: bytes) -> None:
        """Append received bytes."""
        self.size += len(chunk)
        self._chunks.append(chunk)
        if self.size > self._in_memory:
            if self._file is None:
                self._file = self._part.open("ab")
            self._file.writelines(self._chunks)
            self._chunks.clear()

    def close(self) -> None:
        """Close the part file; the next `write` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def clear(self) -> None:
        """Discard all bytes."""
        self.close()
        self._chunks.clear()
        self._part.unlink(missing_ok=True)
        self.size = 0

    def read(self) -> bytes:
        """All bytes received so far."""
        return self._part.read_bytes() if self.size > self._in_memory else b"".join(self._chunks)

    def move_to(self, path: Path) -> None:
        """Rename to `path` atomically."""
        if self.size <= self._in_memory:
            self._part.write_bytes(self.read())
        self._part.replace(path)
