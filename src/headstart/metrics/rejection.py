"""How well a score tells foreign pictures from known ones: share kept, FPR95, AUROC. No torch, no disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.conformal import conformal_quantile, least_count
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import few_units_note, mean_interval
from headstart.metrics.roc_auc import ranking_interval
from headstart.metrics.strangeness import KEPT, fit_feature_bank


@dataclass(frozen=True)
class Rejection:
    """Figures of one kind of foreign pictures.

    The intervals cover the choice of the pictures that are scored. The training pictures from which strangeness is
    measured count as given, and so does the threshold: that other pictures would have given another one is not covered.

    Attributes:
        fpr95: share of them that is taken for known, at the threshold that keeps 95 % of known pictures.
        auroc: probability that a foreign picture is stranger than a known one, 0.5: chance.
        pictures: how many foreign pictures.
    """

    fpr95: Estimate
    auroc: Estimate
    pictures: int


def threshold_that_keeps(scores: Floats, units: Ints) -> tuple[float, str]:
    """The threshold within which KEPT of pictures like these lie, finite-sample correct, and what limits it.

    Args:
        scores: of pictures that the model did not learn from, (n,).
        units: of them, (n,).

    Returns:
        the threshold, infinite where there are too few pictures, and a note; empty where nothing limits it.
    """
    threshold = conformal_quantile(scores, units, KEPT)
    if np.isfinite(threshold):
        return threshold, ""
    needed = least_count(KEPT)
    threshold = conformal_quantile(scores, np.arange(len(scores)), KEPT)
    if np.isfinite(threshold):
        return threshold, (
            f"the threshold comes from only {len(np.unique(units))} independent groups ({needed} are needed): of "
            f"pictures from other groups fewer than {100 * KEPT:.0f} % may be kept"
        )
    return threshold, (
        f"no picture is turned away: a threshold that keeps {100 * KEPT:.0f} % needs {needed} pictures that were not "
        f"trained on, and there are {len(scores)}"
    )


def rejection(known: Floats, known_units: Ints, foreign: Floats, foreign_units: Ints, threshold: float) -> Rejection:
    """How foreign pictures fare.

    Args:
        known: scores of pictures of the labels, (n,), n > 0.
        known_units: of them, (n,).
        foreign: scores of others, (m,), m > 0.
        foreign_units: of them, (m,); a number that is also a known picture's is the same unit.
        threshold: as `threshold_that_keeps` gives it.
    """
    scores, units = np.concatenate([known, foreign]), np.concatenate([known_units, foreign_units])
    auroc = ranking_interval(scores, np.arange(len(scores)) >= len(known), units)
    # Of a few pictures against many others the interval covers down to 83 %, however many there are together.
    fewer = few_units_note(min(len(np.unique(known_units)), len(np.unique(foreign_units))))
    return Rejection(
        mean_interval(np.asarray(foreign <= threshold, dtype=np.float64), foreign_units),
        replace(auroc, note=fewer or auroc.note),
        len(foreign),
    )


@dataclass(frozen=True)
class Sample:
    """Pictures' features (n, f), class numbers (n,) and units (n,)."""

    features: Floats
    labels: Ints
    units: Ints

    def where(self, chosen: Bools) -> "Sample":
        """Some of them."""
        return Sample(self.features[chosen], self.labels[chosen], self.units[chosen])


def leave_labels_out(bank: Sample, val: Sample, test: Sample, widths: Sequence[int]) -> Mapping[int, Rejection]:
    """Each label in turn as if it were none: bank and threshold without its pictures, which are then foreign.

    The foreign ones are its pictures of val and test; a label without any is left out of the result, and so are all
    where nothing else would be left to measure with. `widths` are those of the features' parts.
    """
    found: dict[int, Rejection] = {}
    for label in np.unique(bank.labels).tolist():
        kept, threshold_from, known = (one.where(one.labels != label) for one in (bank, val, test))
        foreign = [one.where(one.labels == label) for one in (val, test)]
        if min(len(kept.labels) - 1, len(threshold_from.labels), len(known.labels)) < 1 or not any(
            len(one.labels) for one in foreign
        ):
            continue
        model = fit_feature_bank(kept.features, widths)
        threshold, _ = threshold_that_keeps(model.strangeness(threshold_from.features), threshold_from.units)
        apart = val.units.max(initial=-1) + 1  # no unit has pictures of both splits
        units = np.concatenate([foreign[0].units, foreign[1].units + apart])
        scores = model.strangeness(np.concatenate([one.features for one in foreign]))
        found[label] = rejection(model.strangeness(known.features), known.units + apart, scores, units, threshold)
    return found
