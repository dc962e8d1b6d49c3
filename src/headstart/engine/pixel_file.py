"""Rows of pixels in a memory-mapped .npy file, with a checksum of each row behind the array. No torch.

Written once and only read after that. The checksums (CRC-32, uint32, little-endian) follow the array's last byte, where
`numpy.load` does not look.
"""

import io
import math
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.base.cache_dir import make_room, write_entry_file
from headstart.base.one_line import WRITE_ERRORS
from headstart.base.parallel import parallel_map, process_cpu_count
from headstart.engine.input_spec import Pixels

_CHECKSUM = np.dtype("<u4")


@dataclass(frozen=True)
class CheckedRows:
    """A file's rows.

    Attributes:
        rows: (n, …), memory-mapped; None: nothing in the file can be used.
        damaged: numbers of the rows that disagree with their checksums.
    """

    rows: Pixels | None
    damaged: Sequence[int]

    def description(self) -> str:
        """What is damaged: `1 of its pictures is damaged`."""
        if self.rows is None:
            return "the file is damaged"
        count = len(self.damaged)
        return f"{count:,} of its {len(self.rows):,} pictures {'is' if count == 1 else 'are'} damaged"


def open_checked_rows(path: Path, shape: tuple[int, ...]) -> CheckedRows:
    """Open a file of `write_checked_rows` and check all rows: 0.3 s for 1 GB in memory, on one core.

    Raises:
        FileNotFoundError: there is none.
    """
    header, count = _header(shape), shape[0]
    size = len(header) + math.prod(shape)
    with path.open("rb") as file:
        # A mapped file that is too short would end the process by SIGBUS.
        if os.fstat(file.fileno()).st_size != size + count * _CHECKSUM.itemsize or file.read(len(header)) != header:
            return CheckedRows(None, range(count))
        file.seek(size)
        expected = np.frombuffer(file.read(), _CHECKSUM)
        rows: Pixels = np.memmap(file, np.uint8, "r", len(header), shape)
    blocks = [range(start, min(start + 64, count)) for start in range(0, count, 64)]
    with ThreadPoolExecutor(process_cpu_count()) as threads:  # zlib releases the GIL
        found = threads.map(lambda block: [zlib.crc32(rows[row].data) for row in block], blocks)
        checksums = np.array([checksum for block in found for checksum in block], _CHECKSUM)
    return CheckedRows(rows, np.flatnonzero(checksums != expected).tolist())


def write_checked_rows(path: Path, shape: tuple[int, ...], row: Callable[[int], Pixels], label: str) -> Pixels:
    """Write a file of a cache entry and return its rows, memory-mapped and read-only.

    Args:
        path: of the file.
        shape: of all rows.
        row: the pixels of a row, by its number; called in threads.
        label: of the progress bar.
    """
    header, count = _header(shape), shape[0]
    size = len(header) + math.prod(shape)
    make_room(path.parent, size)
    with write_entry_file(path) as part:
        with part.open("wb") as file:
            file.write(header)
            _preallocate(file.fileno(), size)
        rows: Pixels = np.memmap(part, np.uint8, "r+", len(header), shape)

        def fill(number: int) -> int:
            pixels = np.ascontiguousarray(row(number))
            rows[number] = pixels
            return zlib.crc32(pixels.data)

        checksums = parallel_map(fill, range(count), label)
        rows.flush()  # type: ignore[attr-defined]
        with part.open("ab") as file:
            file.write(np.array(checksums, _CHECKSUM).tobytes())
    rows.flags.writeable = False
    return rows


def _header(shape: tuple[int, ...]) -> bytes:
    """The bytes of a .npy file before the array."""
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _preallocate(file: int, size: int) -> None:
    """Allocate all blocks: a full disk is an error here, and a SIGBUS when a page is written later."""
    os.ftruncate(file, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno in WRITE_ERRORS:  # any other: a file system that cannot preallocate
                raise
