"""Percentile bootstrap (Efron 1979) over the test pictures: resamples as rows of weights, estimates with intervals.

A row of weights holds how often a resample drew each picture; a metric on many resamples is then a matrix product.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats

_BLOCK_SIZE = 1_000_000  # weights in one block of resamples: arrays stay small however many pictures there are


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


def resample_weights(pictures: int, times: int, seed: int, width: int = 0) -> Iterator[Floats]:
    """Yield blocks (b, pictures) of weights, `times` rows in all; each row sums to `pictures`.

    Args:
        pictures: size of the test set, and of each resample, drawn with replacement.
        times: number of resamples.
        seed: the same seed gives the same rows.
        width: columns that the caller computes of each row, where they are more than the pictures: blocks are smaller
            then, the rows the same.
    """
    rng = np.random.default_rng(seed)
    block_rows = max(1, _BLOCK_SIZE // max(pictures, width))
    for start in range(0, times, block_rows):
        rows = min(block_rows, times - start)
        yield rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=rows).astype(np.float64)


def bootstrap_estimate(value: float, samples: Floats) -> Estimate:
    """A metric with its percentile interval.

    The interval is widened where it does not contain the metric itself: expected calibration error, for one, is never
    negative, so that the resamples of a small one lie above it.

    Args:
        value: the metric on the test pictures.
        samples: the same metric on each resample; NaN where it is undefined.
    """
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))
