"""A few rows out of a CSV file of gigabytes, at about the speed of memory.

Parsing every field of 14.6 million rows to keep some thousand is what takes the time and the memory. So the file is
first searched, as bytes, for lines that hold one of the wanted names; only those are parsed. The search leans on one
thing: a name begins with a slash, a letter and a slash (`/m/0pcr`, as all of Freebase's do), which no other column of
these files holds. Numpy finds those places eight bytes at a time, and compares what follows with the wanted names as
64-bit numbers; it lets go of the interpreter's lock, so threads share the work.
"""

import io
import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 1 << 19  # bytes: fits the processor's cache
MARGIN = 1 << 12  # bytes; longer than any line
PADDING = 32  # bytes
FEW = 8  # names of one length up to which comparing one by one is faster than sorting
SLASH = ord("/")
Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]


def with_names(path: Path, column: str, names: Sequence[str], columns: Sequence[str], workers: int = 2) -> "pa.Table":
    """The rows whose `column` is one of `names`.

    Args:
        path: a CSV file with a header line, without line breaks inside its fields.
        column: the column that holds a name.
        names: Freebase names such as `/m/0pcr`.
        columns: what to keep; a column that the file does not have is left out.
        workers: threads.

    Returns:
        A table of strings, in the order of the file.
    """
    import pyarrow.compute as pc

    with path.open("rb") as file:
        header = file.readline()
    lines = [header, *_lines(path, len(header), names, workers)]
    found = _parse(b"".join(lines), columns)
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


def _lines(path: Path, start: int, names: Sequence[str], workers: int) -> Iterator[bytes]:
    """The lines after `start` that hold one of the names, or something that begins like it, in the file's order."""
    targets = _targets(names)
    thread = threading.local()
    with path.open("rb") as file, ThreadPoolExecutor(workers) as pool:
        descriptor, size = file.fileno(), path.stat().st_size

        def block(begin: int) -> list[bytes]:
            """Lines whose name begins in this block; a margin before and after it makes them whole."""
            if not hasattr(thread, "data"):
                # Taken once: memory taken anew for every block would cost more than the search.
                thread.data = bytearray(MARGIN + BLOCK + MARGIN + PADDING)
                thread.scratch = np.empty((2, BLOCK + PADDING), bool)
            data, first = thread.data, max(start, begin - MARGIN)
            count = os.preadv(descriptor, [memoryview(data)[: begin - first + BLOCK + MARGIN]], first)
            data[count : count + PADDING] = bytes(PADDING)  # a comparison may reach beyond the end
            own = begin - first
            hits = _find(np.frombuffer(data, np.uint8, min(BLOCK, count - own) + PADDING, own), targets, thread.scratch)
            return [_line(data, own + hit, count) for hit in hits.tolist()]

        for lines in pool.map(block, range(start, size, BLOCK)):
            yield from lines


def _line(data: bytearray, place: int, count: int) -> bytes:
    end = data.find(b"\n", place, count)
    return bytes(data[data.rfind(b"\n", 0, place) + 1 : end if end >= 0 else count]) + b"\n"


def _targets(names: Sequence[str]) -> list[tuple[np.uint64, Words]]:
    """What follows the second slash of the names, eight bytes at most, as numbers: (mask, numbers) by length."""
    by_length: dict[int, list[int]] = {}
    for name in names:
        assert re.match(r"/\w/.", name), name
        key = name[3:11].encode()
        by_length.setdefault(len(key), []).append(int.from_bytes(key, "little"))
    return [(np.uint64(256**length - 1), np.array(keys, np.uint64)) for length, keys in by_length.items()]


def _find(data: Bytes, targets: list[tuple[np.uint64, Words]], scratch: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Where one of the targets begins, but for the padding at the end of the data."""
    length = -(-(len(data) - PADDING) // 8) * 8
    slashes, second = scratch[:, :length]
    np.equal(data[:length], SLASH, out=slashes)
    np.equal(data[2 : length + 2], SLASH, out=second)
    slashes &= second
    words = slashes.view(np.uint64)
    where = np.flatnonzero(words != 0)
    found = words[where]
    if (found & (found - np.uint64(1))).any():  # two in eight bytes: not in a file we know, but it would be missed
        places = np.flatnonzero(slashes)
    else:
        places = where * 8 + ((np.frexp(found.astype(np.float64))[1] - 1) >> 3)  # a byte's place is its logarithm
    after = np.ndarray((len(data) - 8,), "<u8", data, strides=(1,))[places + 3]
    hit = np.zeros(len(places), bool)
    for mask, keys in targets:
        masked = after & mask
        if len(keys) > FEW:
            hit |= np.isin(masked, keys)
        else:
            for key in keys:
                hit |= masked == key
    return np.asarray(places[hit])
