"""What has arrived of one file: in memory while it is small, in its part file from there on."""

from pathlib import Path
from typing import BinaryIO


class Body:
    """The bytes of a download until it is complete and verified.

    Most pictures never touch the disk before they are verified: creating a file costs more than receiving one.

    Attributes:
        size: bytes that have arrived.
    """

    def __init__(self, part: Path, in_memory: int = 0) -> None:
        """Begin with what `part` holds already.

        Args:
            part: the file for what is more than that; nobody else's.
            in_memory: bytes up to which nothing is written; 0: all is, so that a killed process loses nothing.
        """
        self._part, self._in_memory = part, in_memory
        self._chunks: list[bytes] = []
        self._file: BinaryIO | None = None
        self.size = part.stat().st_size if part.exists() else 0

    def write(self, chunk: bytes) -> None:
        """Some more has arrived."""
        self.size += len(chunk)
        self._chunks.append(chunk)
        if self.size > self._in_memory:
            if self._file is None:
                self._file = self._part.open("ab")
            self._file.writelines(self._chunks)
            self._chunks.clear()

    def close(self) -> None:
        """Nothing more arrives for now."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def clear(self) -> None:
        """What has arrived is no good."""
        self.close()
        self._chunks.clear()
        self._part.unlink(missing_ok=True)
        self.size = 0

    def read(self) -> bytes:
        """All of it."""
        return self._part.read_bytes() if self.size > self._in_memory else b"".join(self._chunks)

    def move(self, path: Path) -> None:
        """All of it becomes this file, whole or not at all."""
        if self.size <= self._in_memory:
            self._part.write_bytes(self.read())
        self._part.replace(path)
