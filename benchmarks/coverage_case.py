"""A cell of the table of coverage.py: a figure under one truth, and how to draw one data set and its interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One figure at one size.

    Attributes:
        name: what `--only` chooses by, such as "accuracy, groups of 10".
        figure: the key in metrics.json.
        pictures: number of test pictures.
        units: number of independent units among them.
        rate: the true rate, or what stands for it, as the table shows it.
        truth: the value that an interval must contain.
        draw: draws one test set with a generator, and gives low, high and value of the figure on it.
        promised: whether 93 to 97 % is promised here; the reason why it is not is in the report's note.
    """

    name: str
    figure: str
    pictures: int
    units: int
    truth: float
    draw: Callable[[np.random.Generator], tuple[float, float, float]]
    rate: float = float("nan")
    promised: bool = True
