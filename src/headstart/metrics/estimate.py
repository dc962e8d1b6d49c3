"""An estimate: a metric with its interval, or the reason why it has none; and as it is written to JSON files."""

from collections.abc import Mapping
from dataclasses import dataclass

METRIC_DIGITS = 6  # decimals in a file; in those beyond them the arithmetic of two machines differs


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % interval, or the reason why it is undefined.

    Attributes:
        value: on the pictures as they are; None where it is undefined.
        low: lower end of the interval; None without one.
        high: upper end.
        absent: why there is no value; empty where there is one.
        note: why the interval may not hold, or why there is none beside a value; empty where it holds.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    absent: str = ""
    note: str = ""


def estimates_json(estimates: Mapping[str, Estimate]) -> dict[str, float | str]:
    """`estimate_json` of several metrics, in one dictionary."""
    return {key: value for name, e in estimates.items() for key, value in estimate_json(name, e).items()}


def estimate_json(name: str, estimate: Estimate) -> dict[str, float | str]:
    """A metric as `<name>`, `<name>_low` and `<name>_high`.

    `<name>_absent` is the reason where it is undefined; `<name>_note` why it has no interval, or one that may not hold.
    """
    if estimate.value is None:
        return {f"{name}_absent": estimate.absent}
    found = rounded({name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high})
    return found | ({f"{name}_note": estimate.note} if estimate.note else {})


def rounded(values: Mapping[str, float | None]) -> dict[str, float | str]:
    """Values with METRIC_DIGITS decimals; undefined ones are left out."""
    return {key: round(value, METRIC_DIGITS) for key, value in values.items() if value is not None}
