"""CSV files behind the plots, for `dvc plots`; dvc.yaml has one plot of each for both tasks."""

from collections.abc import Iterable, Sequence

import numpy as np

from headstart.base.arrays import Floats
from headstart.base.files import csv_text


def confusion_csv(pairs: Iterable[tuple[int, int]], names: Sequence[str]) -> str:
    """confusion.csv: actual and predicted class of every picture or box; `pairs` are numbers of `names`."""
    return csv_text(("actual", "predicted"), [(names[actual], names[predicted]) for actual, predicted in pairs])


def precision_recall_csv(recall: Floats, precision: Floats) -> str:
    """precision-recall.csv, a row for each point of the curve."""
    return csv_text(("recall", "precision"), np.stack([recall, precision], axis=1).round(6).tolist())
