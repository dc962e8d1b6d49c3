"""Whether one model is better than another on the same pictures: paired tests that swap the models unit by unit.

Where both models are equally good, it is chance which of them gave which answer: exchanging the two models' answers on
all pictures of a unit gives a data set that was just as likely. With one picture a unit and right or wrong answers this
is McNemar's exact test (1947), the binomial test of the pictures that only one model has right.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.cluster import sum_by_unit

LEVEL = 0.05  # chance of a false champion among all challengers of one champion together
PERMUTATIONS = 10_000  # at least, where there are too many to compute all of them

_ENUMERATED_UNITS = 13  # 2 ** 13 exchanges are fewer than PERMUTATIONS: all of them are computed
_BLOCK_SIZE = 1_000_000  # numbers in one block of exchanges
_ROUNDING = 1e-9  # relative: two sums of the same numbers in another order are equal


@dataclass(frozen=True)
class PairedTest:
    """A two-sided p-value, and the test that gave it, in words."""

    p: float
    method: str


def challenger_level(number: int) -> float:
    """The two-sided p-value asked of a champion's challenger of this number: 0.05 of the first, 0.0167, 0.0083, 0.005.

    Of the two sides only the better one makes a champion, so that half of it is the chance of a false one. The halves,
    LEVEL / (number * (number + 1)), add up to LEVEL, however many challengers there will be: alpha-spending (Tian and
    Ramdas 2021, Online control of the familywise error rate, arXiv 1910.04900).
    """
    return 2 * LEVEL / (number * (number + 1))


def sign_flip_test(differences: Floats, units: Ints, *, level: float = 0.05, seed: int = 0) -> PairedTest:
    """Test of the mean of paired differences: the sign of each unit's sum is chance.

    Exact where the sums are whole numbers (answers right or wrong) or the units few; else by PERMUTATIONS random signs,
    or more where `level` needs them.

    Args:
        differences: of the two models on each picture, (n,).
        units: the number of each picture's unit, (n,).
        level: the p-value asked for.
        seed: of the random signs.
    """
    sums = np.abs(signed := sum_by_unit(differences, units))
    observed, sums = abs(float(signed.sum())), sums[sums > _ROUNDING * np.abs(differences).max(initial=0)]
    if len(sums) == 0:
        return PairedTest(1.0, "no difference on any picture")
    if np.array_equal(sums, sums.round()):
        name = "McNemar's exact test" if len(np.unique(units)) == len(units) else "exact sign-flip test over units"
        return PairedTest(_whole_tail(sums.astype(int), round(observed)), name)
    limit = observed - _ROUNDING * sums.sum()
    if len(sums) <= _ENUMERATED_UNITS:
        return PairedTest(float((np.abs(_all_signs(len(sums)) @ sums) >= limit).mean()), "exact sign-flip test")
    times, reached, rng = _times(level), 0, np.random.default_rng(seed)
    for rows in _block_rows(times, len(sums)):
        signs = rng.integers(0, 2, (rows, len(sums))) * 2 - 1
        reached += int((np.abs(signs @ sums) >= limit).sum())
    return PairedTest((reached + 1) / (times + 1), f"sign-flip test, {times:,} permutations over units")


def swap_test(
    metric: Callable[[Floats], Floats],
    units: Ints,
    differ: Bools,
    *,
    level: float = 0.05,
    seed: int = 0,
    width: int = 0,
) -> PairedTest:
    """Test of the difference of any metric, such as ROC AUC or AP, that is no mean over pictures.

    Args:
        metric: weights (b, 2 n) of the first model's answers and then the second's -> the metric of each row, (b,). A
            row has the answers of one model for each picture.
        units: the number of each picture's unit, (n,).
        differ: where the two models' answers are not the same, (n,).
        level: the p-value asked for.
        seed: of the random exchanges.
        width: columns that `metric` computes of each row, where they are more than 2 n.
    """
    numbers = np.unique(units, return_inverse=True)[1]
    changing = np.unique(numbers[differ])
    if len(changing) == 0:
        return PairedTest(1.0, "no difference on any picture")

    def difference(swapped: Bools) -> Floats:
        of_unit = np.zeros((len(swapped), int(numbers.max()) + 1), bool)
        of_unit[:, changing] = swapped
        second = of_unit[:, numbers].astype(np.float64)
        return metric(np.hstack([1 - second, second])) - metric(np.hstack([second, 1 - second]))

    observed = abs(float(difference(np.zeros((1, len(changing)), bool))[0])) * (1 - _ROUNDING)
    if len(changing) <= _ENUMERATED_UNITS:
        every, columns = _all_signs(len(changing)) > 0, max(2 * len(units), width)
        parts = np.split(every, np.cumsum(_block_rows(len(every), columns))[:-1])
        reached = sum(int((np.abs(difference(part)) >= observed).sum()) for part in parts)
        return PairedTest(reached / len(every), "exact permutation test over units")
    times, reached, rng = _times(level), 0, np.random.default_rng(seed)
    for rows in _block_rows(times, max(2 * len(units), width)):
        swapped = rng.integers(0, 2, (rows, len(changing))) > 0
        reached += int((np.abs(difference(swapped)) >= observed).sum())
    return PairedTest((reached + 1) / (times + 1), f"{times:,} permutations over units")


def _whole_tail(sums: Ints, observed: int) -> float:
    """P(|sum of ±sums| >= observed) for random signs, by convolution; sums are 1 or more."""
    total = int(sums.sum())
    if total == len(sums):  # the same, at once where they are many
        from scipy import stats

        return float(stats.binomtest((total + observed) // 2, total).pvalue)
    chances = np.zeros(2 * total + 1)  # of the sums -total to total
    chances[total] = 1
    reach = 0  # no sum so far is further from 0
    for size in sums:
        inner = chances[total - reach : total + reach + 1] / 2
        reach += int(size)
        chances[total - reach : total + reach + 1] = np.pad(inner, (0, 2 * size)) + np.pad(inner, (2 * size, 0))
    distance = np.abs(np.arange(-total, total + 1))
    return min(1.0, float(chances[distance >= observed].sum()))


def _all_signs(units: int) -> Floats:
    return np.array(list(itertools.product((-1.0, 1.0), repeat=units)))


def _times(level: float) -> int:
    """Random permutations: so many that a p-value below the level can come out."""
    return max(PERMUTATIONS, math.ceil(2 / level))


def _block_rows(times: int, columns: int) -> list[int]:
    """The rows of each block, `times` in all."""
    most = max(1, _BLOCK_SIZE // columns)
    return [min(most, times - start) for start in range(0, times, most)]
