"""A few rows out of a CSV file of gigabytes, at about the speed of memory.

Parsing every field of 14.6 million rows to keep some thousand is what takes the time and the memory. So the file is
first searched, as bytes, for lines that hold one of the wanted names; only those are parsed. The search leans on one
thing: a name begins with a slash, a letter and a slash (`/m/0pcr`, as all of Freebase's do), which no other column of
these files holds. Numpy finds those places, looks two letters of each up in a table, and compares what is left with the
wanted names as 64-bit numbers; it lets go of the interpreter's lock, so threads share the work.
"""

import io
import mmap
import re
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
BLOCK = 1 << 18  # bytes that are searched at a time: they and what is computed of them fit a core's cache
MARGIN = max(mmap.ALLOCATIONGRANULARITY, 1 << 13)  # bytes; longer than any line
POPULATED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # Linux maps a window at once, not page by page
FEW = 8  # names of one length up to which comparing one by one is faster than sorting
PADDING = 16  # bytes behind the end of the file, so that what follows a name can be looked at there too
SLASH = ord("/")
Bytes = npt.NDArray[np.uint8]
Pairs = npt.NDArray[np.uint16]
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
    with csv.open_csv(path, csv.ReadOptions(block_size=1 << 23), parse, convert) as reader:
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
    targets, size = _Targets(names), path.stat().st_size
    with path.open("rb") as file, ThreadPoolExecutor(cores()) as pool:

        def window(begin: int) -> list[tuple[int, bytes]]:
            """Lines by their place, of which a name begins in this window; margins on both sides make them whole."""
            first, end = max(0, begin - MARGIN), min(begin + WINDOW, size)
            length = min(end + MARGIN, size) - first
            data = mmap.mmap(file.fileno(), length, flags=POPULATED, prot=mmap.PROT_READ, offset=first)
            searched = np.frombuffer(data, np.uint8)
            if first + length == size:
                searched = np.concatenate([searched, np.zeros(PADDING + size % 2, np.uint8)])
            found = []
            for hit in targets.find(searched, begin - first, end - first):
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
    """The names to look for: their first letters, two letters in their middle, and what follows the second slash."""

    def __init__(self, names: Sequence[str]) -> None:
        by_length: dict[int, set[int]] = {}
        self._middle = np.zeros(1 << 16, bool)  # by two bytes as a number: whether they may be a name's 5th and 6th
        for name in names:
            assert re.match(r"/[a-z]/.", name), name
            key = name[3:11].encode()
            by_length.setdefault(len(key), set()).add(int.from_bytes(key, "little"))
            for some in (name[4:6].encode(), name[5:7].encode()):
                number, step = int.from_bytes(some, "little"), 1 << 8 * len(some)
                self._middle[number::step] = True  # of a short name, whatever follows it
        self._letters = sorted({ord(name[1]) for name in names})
        self._keys = [(np.uint64(256**size - 1), np.array(sorted(keys), np.uint64)) for size, keys in by_length.items()]

    def find(self, data: Bytes, start: int, end: int) -> list[int]:
        """Where names may begin, from `start` to `end`: all places where one does, and few others.

        Args:
            data: an even number of bytes.
            start: even.
            end: PADDING bytes follow it.
        """
        pairs = data.view("<u2")
        blocks = range(start // 2, (end + 1) // 2, BLOCK // 2)
        found = [self._in_block(pairs, block, min(block + BLOCK // 2, blocks.stop)) for block in blocks]
        places = np.concatenate(found) * 2
        places -= data[places] != SLASH
        # Eight bytes from the second slash on, wherever that is.
        after = np.ndarray((len(data) - 10,), "<u8", data[3:], strides=(1,))[places]
        hit = np.zeros(len(after), bool)
        for mask, keys in self._keys:
            masked = after & mask
            if len(keys) > FEW:
                hit |= np.isin(masked, keys)
            else:
                for key in keys:
                    hit |= masked == key
        kept: list[int] = places[hit].tolist()
        return kept

    def _in_block(self, pairs: Pairs, start: int, end: int) -> Places:
        """The pairs from `start` to `end` that are the `/m` or the `m/` of a name: one of them lies on an even place.

        The bits in which these two differ are left out, so one comparison finds both (and a few that are neither).
        """
        some, hits = pairs[start:end], None
        for letter in self._letters:
            same = ~np.uint16((SLASH ^ letter) * 0x101)
            found = (some & same) == (np.uint16(SLASH * 0x101) & same)
            hits = found if hits is None else hits | found
        assert hits is not None
        where = np.flatnonzero(hits) + start
        return where[self._middle[pairs[where + 2]]]
