"""The sample's table from the package elpv-dataset: labels, confidence, and the module that a cell was cut out of.

    python benchmarks/solar_table.py > samples/solar-cells.csv

The package says that its 2,624 cells are of 44 modules, and not which cell is of which. The modules are inferred from
the order of the files: a run of one cell type is cut into blocks of about 60 cells, the size of a usual module, equal
within one. That gives 44 blocks. Where a run is no multiple of 60 (714 and 530 cells) the true borders may lie some
cells beside these.
"""

import csv
import sys
from collections.abc import Iterator
from importlib.resources import files
from itertools import groupby

MODULE_CELLS = 60
COLUMNS = ("image", "label", "group", "defect_probability", "confidence", "cell_type", "license", "author")
CELL_TYPES = {"mono": "monocrystalline", "poly": "polycrystalline"}


def module_sizes(run: int) -> list[int]:
    """Cells of each module in a run of so many cells of one type: blocks of about MODULE_CELLS, equal within one."""
    count = max(1, round(run / MODULE_CELLS))
    return [run * (number + 1) // count - run * number // count for number in range(count)]


def table_rows() -> Iterator[tuple[str, ...]]:
    """The table's rows in the package's order, the header first."""
    yield COLUMNS
    text = (files("elpv_dataset") / "data/labels.csv").read_text(encoding="utf-8")
    cells = [line.split() for line in text.splitlines()]
    sizes = [size for _, run in groupby(cells, key=lambda cell: cell[2]) for size in module_sizes(len(list(run)))]
    modules = [f"module {number:02d}" for number, size in enumerate(sizes, start=1) for _ in range(size)]
    for (path, probability, cell_type), module in zip(cells, modules, strict=True):
        defective = float(probability)
        yield (
            f"package:elpv_dataset/data/{path}",
            "defective" if defective > 0.5 else "functional",
            module,
            f"{defective:.4g}",
            f"{max(defective, 1 - defective):.4g}",
            CELL_TYPES[cell_type],
            "CC BY-NC-SA 4.0",
            "Buerhop-Lutz et al. 2018",
        )


if __name__ == "__main__":
    csv.writer(sys.stdout, lineterminator="\n").writerows(table_rows())
