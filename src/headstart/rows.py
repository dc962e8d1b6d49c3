"""A few rows out of a CSV file of gigabytes, at about the speed of memory.

Parsing every field of 14.6 million rows to keep some thousand is what takes the time and the memory. So the file is
first searched, as bytes, for lines that hold one of the wanted names; only those are parsed. The search leans on one
thing: a name begins with a slash, a letter and a slash (`/m/0pcr`, as all of Freebase's do), which no other column of
these files holds. Numpy finds those places, and compares what follows with the wanted names as 64-bit numbers; it lets
go of the interpreter's lock, so threads share the work.
"""

import io
import mmap
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from headstart.pool import cores

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW = 1 << 24  # bytes of the file that are mapped at a time
BLOCK = 1 << 20  # bytes that are searched at a time: they fit the processor's cache
MARGIN = max(mmap.ALLOCATIONGRANULARITY, 1 << 13)  # bytes; longer than any line
POPULATED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # Linux maps a window at once, not page by page
FEW = 8  # names of one length up to which comparing one by one is faster than sorting
SLASH = ord("/")
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


def with_names(path: Path, column: str, names: Sequence[str], columns: Sequence[str]) -> "pa.Table":
    """The rows whose `column` is one of `names`.

    Args:
        path: a CSV file with a header line, without line breaks inside its fields.
        column: the column that holds a name.
        names: Freebase names such as `/m/0pcr`.
        columns: what to keep; a column that the file does not have is left out.

    Returns:
        A table of strings, in the order of the file.
    """
    import pyarrow.compute as pc

    with path.open("rb") as file:
        header = file.readline()
    found = _parse(header + b"".join(_lines(path, names)), columns)
    return found.filter(pc.is_in(found[column], _array(names)))


def with_values(path: Path, column: str, values: Sequence[str], columns: Sequence[str]) -> "pa.Table":
    """The same for any values, by parsing the whole file piece by piece; fields may hold line breaks."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    wanted, found = _array(values), []
    kinds = {name: pa.string() for name in columns}
    convert = csv.ConvertOptions(include_columns=list(columns), column_types=kinds, include_missing_columns=True)
    parse = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, csv.ReadOptions(block_size=8 * BLOCK), parse, convert) as reader:
        schema = reader.schema
        for batch in reader:
            found.append(batch.filter(pc.is_in(batch[column], wanted)))
    return pa.Table.from_batches(found, schema)


def _array(values: Sequence[str]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(values, pa.string())


def _parse(data: bytes, columns: Sequence[str]) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv

    kinds = {name: pa.string() for name in columns}
    convert = csv.ConvertOptions(include_columns=list(columns), column_types=kinds, include_missing_columns=True)
    return csv.read_csv(io.BytesIO(data), convert_options=convert)


def _lines(path: Path, names: Sequence[str]) -> Iterator[bytes]:
    """The lines that hold one of the names, or something that begins like it, in the file's order."""
    targets, thread, size = _Targets(names), threading.local(), path.stat().st_size
    with path.open("rb") as file, ThreadPoolExecutor(cores()) as pool:

        def window(begin: int) -> list[tuple[int, bytes]]:
            """Lines by their place, of which a name begins in this window; margins on both sides make them whole."""
            if not hasattr(thread, "scratch"):  # memory taken anew for every block would cost more than the search
                thread.scratch = np.empty((2, BLOCK // 2 + 8), bool)
            first, end = max(0, begin - MARGIN), min(begin + WINDOW, size)
            length = min(end + MARGIN, size) - first
            data = mmap.mmap(file.fileno(), length, flags=POPULATED, prot=mmap.PROT_READ, offset=first)
            searched = np.frombuffer(data, np.uint8)
            found = []
            for block in range(begin - first, end - first, BLOCK):
                for hit in targets.find(searched, block, min(block + BLOCK, end - first), thread.scratch):
                    line, last = data.rfind(b"\n", 0, hit) + 1, data.find(b"\n", hit)
                    found.append((first + line, data[line : last if last >= 0 else length] + b"\n"))
            return found

        previous = -1
        for lines in pool.map(window, range(0, size, WINDOW)):
            for place, line in lines:
                if place != previous:
                    yield line
                previous = place


class _Targets:
    """The names to look for: their first letters, and what follows the second slash, as numbers of at most 8 bytes."""

    def __init__(self, names: Sequence[str]) -> None:
        by_length: dict[int, set[int]] = {}
        for name in names:
            assert re.match(r"/[a-z]/.", name), name
            key = name[3:11].encode()
            by_length.setdefault(len(key), set()).add(int.from_bytes(key, "little"))
        self.letters = sorted({ord(name[1]) for name in names})
        self.keys = [(np.uint64(256**size - 1), np.array(sorted(keys), np.uint64)) for size, keys in by_length.items()]

    def find(self, data: Bytes, start: int, end: int, scratch: Flags) -> list[int]:
        """Where names may begin, from `start` to `end`: all places where one does, and few others."""
        places = self._places(data[start:end], scratch)
        places += start
        last = np.searchsorted(
            places, len(data) - 11, side="right"
        )  # eight bytes follow; the file's end is taken as it is
        after = np.ndarray((max(len(data) - 10, 0),), "<u8", data[3:], strides=(1,))[places[:last]]
        hit = np.zeros(len(after), bool)
        for mask, keys in self.keys:
            masked = after & mask
            if len(keys) > FEW:
                hit |= np.isin(masked, keys)
            else:
                for key in keys:
                    hit |= masked == key
        return [*places[:last][hit].tolist(), *places[last:].tolist()]

    def _places(self, data: Bytes, scratch: Flags) -> Places:
        """Where `/m/` begins. Its `/m` or its `m/` lies on an even place: with pairs of bytes half is to compare."""
        pairs = data[: len(data) // 2 * 2].view("<u2")
        count = -(-len(pairs) // 8) * 8
        hits, more = scratch[0, :count], scratch[1, : len(pairs)]
        hits[len(pairs) :] = False
        wanted = [pair for letter in self.letters for pair in (SLASH | letter << 8, letter | SLASH << 8)]
        np.equal(pairs, wanted[0], out=hits[: len(pairs)])
        for pair in wanted[1:]:
            np.equal(pairs, pair, out=more)
            hits[: len(pairs)] |= more
        words = hits.view(np.uint64)
        where = np.flatnonzero(words != 0)
        found = words[where]
        if (found & (found - np.uint64(1))).any():
            first = np.flatnonzero(hits) * 2  # two in sixteen bytes: not in a file we know, but one would be lost
        else:
            # A word holds a single 1, in its byte number k: as a float its exponent, 1023 + 8 k, tells k.
            first = where * 16 + ((found.astype(np.float64).view(np.int64) >> 55) - 127) * 2
        first -= data[first] != SLASH
        return first
