"""Tables of the report, and numbers as text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Ints
from headstart.base.manifest import Split
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import FEW_UNITS

Cell = str | int | float

EXPORTED_BY_LABEL = "Metrics of the exported model by label"
INTERVAL = "95\N{NO-BREAK SPACE}% interval"  # head of a column
ABSENT = "–"  # in a cell without a value
_MAX_CONFUSIONS = 10  # pairs of labels listed


@dataclass(frozen=True)
class Table:
    """A table of plain values; the first column names the row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class MetricSpec:
    """A metric of the table of both models: its key, name, meaning, and how its values are formatted."""

    key: str
    name: str
    meaning: str
    format: Callable[[float], str]


@dataclass(frozen=True)
class MetricRow:
    """A row of that table, as text: value and interval of each model."""

    name: str
    meaning: str
    head_only: str
    head_only_interval: str
    fine_tuned: str
    fine_tuned_interval: str


def format_percent(value: float) -> str:
    """0.8651 -> 86.5 %, with a no-break space."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def format_decimal(value: float) -> str:
    """A metric that is not a share: three decimals."""
    return f"{value:.3f}"


def format_area(value: float) -> str:
    """An area under a curve, at most 1: three decimals; `> 0.999` where they would read 1.000 and it is less."""
    text = format_decimal(value)
    return ">\N{NO-BREAK SPACE}0.999" if text == "1.000" and value < 1 else text


def format_points(difference: Estimate, unit: str = " points") -> str:
    """A difference of two shares and its interval in points, `+1.9 points (+0.9 to +2.9)`; it has an interval."""
    value, low, high = (_signed(end) for end in (difference.value, difference.low, difference.high))
    return f"{value}{unit} ({low} to {high})"


def _signed(share: float | None) -> str:
    assert share is not None
    points = round(100 * share, 1) + 0.0  # no negative zero
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")


def capital(text: str) -> str:
    """The text with a capital first letter, as a sentence or a caption begins."""
    return text[0].upper() + text[1:]


def format_cell(value: Cell) -> str:
    """The text of a table's cell; integers with thousands separators, 3371008 -> 3,371,008."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def format_estimate(estimate: Estimate, format_value: Callable[[float], str]) -> tuple[str, str]:
    """A metric and its interval, with the note where it may not hold.

    Without an interval the second is the note alone, without a value it is the reason.
    """
    if estimate.value is None:
        return ABSENT, estimate.absent
    interval = format_range(estimate, format_value)
    return format_value(estimate.value), "; ".join(text for text in (interval, estimate.note) if text)


def format_range(estimate: Estimate, format_value: Callable[[float], str], word: str = "to") -> str:
    """The interval, `82.7 % to 89.6 %`; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{format_value(estimate.low)} {word} {format_value(estimate.high)}"


def format_with_interval(estimate: Estimate, format_value: Callable[[float], str]) -> str:
    """Both in one cell: `86.5 % (82.7 % to 89.6 %)`; a dash with the reason where there is no value."""
    value, interval = format_estimate(estimate, format_value)
    return f"{value} ({interval})" if interval else value


def interval_sentence(
    what: str, estimate: Estimate, format_value: Callable[[float], str], *, pictures: int, units: int
) -> str:
    """Between which values a metric is, and which chances that covers.

    Args:
        what: the metric, such as `its accuracy`.
        estimate: of the test pictures, with an interval.
        format_value: for its values.
        pictures: number of test pictures.
        units: of how many units they are.
    """
    drawn, others = counted(pictures, "picture"), "pictures"
    if units < pictures:
        drawn += f" of {counted(units, 'unit')}, a unit being a group and its near-duplicates, or a picture alone"
        others = "units"
    few = f" With fewer than {FEW_UNITS} units the interval may not hold." if units < FEW_UNITS else ""
    return (
        f"On other {others} of the same kind {what} is probably between {format_range(estimate, format_value, 'and')} "
        f"(95\N{NO-BREAK SPACE}% interval). That covers the choice of the test pictures ({drawn}), but neither another "
        f"split nor another seed of training.{few}"
    )


def counted(number: int, noun: str) -> str:
    """`1 box`, `2 boxes`, `1,200 pictures`."""
    plural = f"{noun}es" if noun.endswith("x") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def metric_rows(
    specs: Sequence[MetricSpec], head_only: Mapping[str, Estimate], fine_tuned: Mapping[str, Estimate]
) -> list[MetricRow]:
    """Both models' metrics as text."""
    return [
        MetricRow(
            spec.name,
            spec.meaning,
            *format_estimate(head_only[spec.key], spec.format),
            *format_estimate(fine_tuned[spec.key], spec.format),
        )
        for spec in specs
    ]


def baseline_sentence(targets: Ints, labels: Sequence[str]) -> str:
    """What the most frequent label alone would get right, without a full stop; `targets` are class numbers, (n,)."""
    support = np.bincount(targets, minlength=len(labels))
    most = labels[int(support.argmax())]
    return f"Always predicting “{most}” would be correct for {format_percent(support.max() / support.sum())}"


def class_table(
    header: tuple[str, ...],
    rows: Sequence[tuple[Cell, ...]],
    caption: str = EXPORTED_BY_LABEL,
) -> Table:
    """The metrics by label; without a caption they are of the model that fine-tuning left, which is exported."""
    return Table(caption, ("label", *header), tuple(rows))


def top_confusions_table(confusion: Ints, labels: Sequence[str], unit: str) -> Table:
    """The most frequent mistakes.

    Args:
        confusion: counts by actual and predicted label, (k, k).
        labels: their names.
        unit: what is counted, pictures or boxes.
    """
    counts = confusion.copy()
    actual_total = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    largest = [divmod(int(i), len(labels)) for i in np.argsort(-counts, axis=None, kind="stable")[:_MAX_CONFUSIONS]]
    return Table(
        "Most frequent mistakes, counts of this test set",
        ("actual", "predicted", unit, "share of the actual label"),
        tuple(
            (labels[a], labels[b], int(counts[a, b]), format_percent(counts[a, b] / actual_total[a]))
            for a, b in largest
            if counts[a, b]
        ),
    )


def counts_table(counts: Mapping[Split, Mapping[str, int]], unit: str = "Pictures") -> Table:
    """Pictures (or boxes) by label and split, with totals."""
    labels = sorted({label for split in counts.values() for label in split})
    rows: list[tuple[Cell, ...]] = [(label, *(split.get(label, 0) for split in counts.values())) for label in labels]
    rows.append(("all", *(sum(split.values()) for split in counts.values())))
    return Table(f"{unit} by label and split", ("label", *counts), tuple(rows))


def picture_counts_table(caption: str, kind: str, counts: Mapping[str, int], counted_as: str = "pictures") -> Table:
    """Pictures by source or licence, or duplicates by kind."""
    return Table(caption, (kind, counted_as), tuple(counts.items()))
