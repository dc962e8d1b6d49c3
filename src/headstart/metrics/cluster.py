"""Pictures that are alike: sums by unit, and the design effect by which their units lower the effective sample size."""

from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Ints

Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_PRIOR_UNITS = 4  # for how many units it counts that the pictures of a unit may be all alike (see design_effect)


@dataclass(frozen=True)
class UnitWeights:
    """How an estimate depends on its units.

    Attributes:
        count: number of units.
        effective: number of units of one size that would weigh as unequally: (sum of weights)^2 / sum of squares.
        alike: the design effect where the pictures of a unit are all the same.
        shrinkage: factor by which a unit's squared influence is too small, for the estimate leans towards it, (units,).
    """

    count: int
    effective: float
    alike: float
    shrinkage: Floats


def weigh_units(weights: Floats, units: Ints, classes: Ints | None = None) -> UnitWeights:
    """Units of pictures.

    Args:
        weights: of the pictures in the estimate, (n,).
        units: (n,).
        classes: number of the class within whose mean each picture is compared, (n,); by default it is one mean.
    """
    numbers = np.unique(units, return_inverse=True)[1]
    of_class = np.zeros(len(numbers), dtype=np.int64) if classes is None else classes
    shape = int(numbers.max()) + 1, int(of_class.max()) + 1
    flat = np.bincount(numbers * shape[1] + of_class, weights=weights, minlength=shape[0] * shape[1])
    by_class = np.asarray(flat, dtype=np.float64).reshape(shape)
    return _weigh(by_class, float((weights**2).sum()))


def weigh_sizes(sizes: Floats) -> UnitWeights:
    """Units of so many things that weigh 1 each, such as the boxes of their pictures."""
    return _weigh(sizes[:, None], float(sizes.sum()))


def _weigh(weights: Floats, squares: float) -> UnitWeights:
    """Weights of the units by class, (units, classes), and the sum of squares of the single weights."""
    total = weights.sum(axis=1)
    by_class = weights.sum(axis=0)
    leverage = weights / np.where(by_class > 0, by_class, 1)
    parts = weights / total[:, None]
    expected = 1 - 2 * (parts * leverage).sum(axis=1) + parts @ (leverage**2).sum(axis=0)
    return UnitWeights(
        count=len(total),
        effective=float(total.sum() ** 2 / (total**2).sum()),
        alike=float((total**2).sum() / squares),
        shrinkage=np.maximum(expected, 1e-3),
    )


@dataclass(frozen=True)
class DesignEffect:
    """Variance of an estimate divided by what it were if all pictures were independent, and the quantile to use."""

    effect: float
    quantile: float

    def effective_size(self, pictures: float) -> float:
        """The number of independent pictures that show as much, for an interval of the normal quantile."""
        return pictures / self.effect * (Z / self.quantile) ** 2


def design_effect(influences: Floats, weights: UnitWeights, independent: float, telling: float) -> DesignEffect:
    """The design effect (Kish 1965) of an estimate, between 1 and the effect of units whose pictures are all the same.

    Few mistakes cannot tell whether they come by units: where none was made the pictures of a unit count as all alike,
    and this counts as _PRIOR_UNITS units beside those that tell. The quantile is Student's, with one degree of freedom
    less than there are effective units, in so far as the effect is estimated (Korn and Graubard 1998; Dean and Pagano
    2015).

    Args:
        influences: of each unit on the estimate, (units,); they sum to about 0.
        weights: of the units.
        independent: the sum of squares that they would have if all pictures were independent.
        telling: the number of units that differ from the rest, such as those with a mistake.
    """
    from scipy.special import stdtrit

    if weights.alike <= 1 + 1e-9:
        return DesignEffect(1.0, Z)
    seen = weights.alike
    if independent > 0 and weights.count > 1:
        seen = min(max(float((influences**2 / weights.shrinkage).sum()) / independent, 1.0), weights.alike)
    trust = telling / (telling + _PRIOR_UNITS)
    effect = float(seen**trust * weights.alike ** (1 - trust))
    student = float(stdtrit(max(weights.effective - 1, 1), 0.975))
    return DesignEffect(effect, Z + (student - Z) * trust * (1 - 1 / effect))


def sum_by_unit(values: Floats, units: Ints) -> Floats:
    """Sums of the values by unit: (n,) or (n, k) -> (units,) or (units, k), in the order of the units' numbers."""
    numbers = np.unique(units, return_inverse=True)[1]
    if values.ndim == 1:
        return np.asarray(np.bincount(numbers, weights=values), dtype=np.float64)
    return np.stack([np.bincount(numbers, weights=column) for column in values.T], axis=1)
