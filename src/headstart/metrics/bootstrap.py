"""An estimate: a metric with its interval, or the reason why it has none."""

from dataclasses import dataclass


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
