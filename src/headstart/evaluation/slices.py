"""`evaluate.slices`: accuracy, or AP50, by source, group, size, brightness or a column, the worst slice first."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageStat

from headstart.base.arrays import Floats, Ints
from headstart.base.errors import UserError, did_you_mean
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map
from headstart.base.stored_picture import open_stored_picture
from headstart.evaluation.report_tables import (
    INTERVAL,
    Table,
    capital,
    counted,
    format_decimal,
    format_estimate,
    format_percent,
)
from headstart.metrics import detection_slices
from headstart.metrics.estimate import estimate_json
from headstart.metrics.slices import (
    LEAST_PICTURES,
    OTHERS,
    Adjust,
    SliceFigure,
    Slicing,
    as_it_is,
    slice_by_number,
    slice_by_value,
    slice_figures,
)

CONFIDENCE = "confidence"  # of whoever gave the picture its label
OF_EVERY_PICTURE = ("source", "group", "size", "brightness", CONFIDENCE)
MOST_SHOWN = 20  # slices of one property in the report and in metrics.json


@dataclass(frozen=True)
class ExaminedPictures:
    """Pictures that were predicted by a model that did not learn from them.

    Attributes:
        images: n of them.
        correct: 1.0 where the prediction is the label, else 0.0, (n,).
        units: the number of each picture's unit, (n,).
        what: which pictures and which model, as in `the 44 test pictures, predicted by the exported model`.
        adjust: widens the intervals where several models predicted them.
    """

    images: Sequence[Image]
    correct: Floats
    units: Ints
    what: str
    adjust: Adjust = as_it_is


@dataclass(frozen=True)
class SliceMetric:
    """What slices are compared by: its key in metrics.json, its name in a sentence, how it is formatted, a remark."""

    key: str
    name: str
    format: Callable[[float], str]
    remark: str = ""


ACCURACY = SliceMetric("accuracy", "accuracy", format_percent)
AP50 = SliceMetric(
    detection_slices.NAME,
    detection_slices.NAME,
    format_decimal,
    " AP50 is the mean over the labels that have a box in the slice, and on the rest over the same labels.",
)


@dataclass(frozen=True)
class SliceSection:
    """The report's section: what the figures are of, what is worse than the rest, and a table for each property."""

    heading: str
    intro: str
    worse: Sequence[str]
    tables: Sequence[Table]


def check_slices(keys: Collection[str], images: Sequence[Image]) -> None:
    """Check `evaluate.slices` against what is known of the pictures.

    Raises:
        UserError: a key that no picture has.
    """
    columns = sorted({column for image in images for column in image.columns or ()})
    known = (*OF_EVERY_PICTURE, *columns)
    for key in keys:
        if key not in known:
            of_tables = f"; the tables' columns are {', '.join(columns)}" if columns else "; the tables have no columns"
            fix = did_you_mean(key, known, f"give {', '.join(OF_EVERY_PICTURE)}, or a column{of_tables}")
            raise UserError(f"params.yaml: evaluate.slices: {key!r}: no such property of a picture; {fix}")


def divide(images: Sequence[Image], keys: Collection[str], root: Path) -> list[Slicing]:
    """The divisions of pictures by these properties, each once, and by `group` where there are two or more of them.

    Args:
        images: the pictures.
        keys: of `evaluate.slices`, checked.
        root: the repository root.
    """
    groups = {image.group for image in images} - {None}
    asked = dict.fromkeys([*(["group"] if len(groups) > 1 else []), *keys])
    return [_divide_by(key, images, root) for key in asked]


def _divide_by(key: str, images: Sequence[Image], root: Path) -> Slicing:
    if key == "group":
        return slice_by_value(key, [image.group for image in images], pictures_alone=True)
    if key == "size":
        return slice_by_number(key, np.sqrt([image.width * image.height for image in images]), _whole)
    if key == "brightness":
        return slice_by_number(key, _brightness(images, root), _whole)
    texts = [_text(key, image) for image in images]
    numbers = [_number(text) for text in texts]
    if any(number is None for number, text in zip(numbers, texts, strict=True) if text is not None):
        return slice_by_value(key, texts)
    return slice_by_number(key, np.array([math.nan if number is None else number for number in numbers]))


def _text(key: str, image: Image) -> str | None:
    """What a picture has as its source, its confidence or in a column of its table."""
    if key == CONFIDENCE:
        return None if image.confidence is None else f"{image.confidence:g}"
    return image.source if key == "source" else (image.columns or {}).get(key) or None


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _brightness(images: Sequence[Image], root: Path) -> Floats:
    """Mean luminance of the stored pictures, 0 to 255, (n,)."""

    def of_picture(image: Image) -> float:
        with open_stored_picture(root / image.file_name) as picture:
            picture.draft("L", (64, 64))  # a JPEG is decoded at an eighth of its size, of the same mean
            return float(ImageStat.Stat(picture.convert("L")).mean[0])

    return np.array(parallel_map(of_picture, images, "brightness"))


def slice_results(
    examined: ExaminedPictures, keys: Collection[str], root: Path
) -> tuple[dict[str, object], SliceSection | None]:
    """Accuracy by slice: `slices` of metrics.json, and the report's section; empty and None without slices.

    Args:
        examined: the pictures and which of them were predicted correctly.
        keys: of `evaluate.slices`, checked.
        root: the repository root.
    """
    slicings = divide(examined.images, keys, root)
    figures = slice_figures(slicings, examined.correct, examined.units, examined.adjust)
    return present_slices(figures, examined.what, ACCURACY)


def present_slices(
    figures: Sequence[SliceFigure], what: str, metric: SliceMetric
) -> tuple[dict[str, object], SliceSection | None]:
    """Figures by slice as `slice_results` returns them; `what` says of which pictures and which model they are."""
    if not figures:
        return {}, None
    by_key: dict[str, list[SliceFigure]] = {}
    for figure in figures:
        by_key.setdefault(figure.key, []).append(figure)
    metrics = {key: {figure.name: _json(figure, metric) for figure in own[:MOST_SHOWN]} for key, own in by_key.items()}
    section = SliceSection(
        heading=f"{capital(metric.name)} by slice",
        intro=f"Of {what}. The worst slice comes first. The intervals are wider than elsewhere: they hold for "
        f"all {counted(len(figures), 'slice')} at once, since among many one is bad by chance."
        f"{_small_slices(figures)}{metric.remark}",
        worse=[worse_sentence(figure, len(figures), metric) for figure in figures if figure.is_worse],
        tables=[_table(key, own, metric) for key, own in by_key.items()],
    )
    return {"slices": metrics}, section


def _small_slices(figures: Sequence[SliceFigure]) -> str:
    """That small ones are together, where there are any."""
    if not any(figure.name.startswith(f"{OTHERS} (") for figure in figures):
        return ""
    return f" A slice of fewer than {LEAST_PICTURES} pictures has no row of its own."


def _name(key: str) -> str:
    """What a property is called: `confidence` is not the model's."""
    return "label’s confidence" if key == CONFIDENCE else key


def worse_sentence(figure: SliceFigure, looks: int, metric: SliceMetric) -> str:
    """That a slice is worse than the rest, which the number of slices looked at does not explain."""
    assert figure.own.value is not None
    assert figure.rest.value is not None
    uncertain = (
        " Their labels are uncertain themselves, so part of it may be wrong labels." if figure.key == CONFIDENCE else ""
    )
    return (
        f"On the {counted(figure.pictures, 'picture')} of {_name(figure.key)} “{figure.name}” the {metric.name} is "
        f"{metric.format(figure.own.value)}, on the rest {metric.format(figure.rest.value)}: too much for chance, "
        f"counting that {counted(looks, 'slice')} were looked at.{uncertain}"
    )


def _json(figure: SliceFigure, metric: SliceMetric) -> dict[str, object]:
    return {**estimate_json(metric.key, figure.own), "pictures": figure.pictures}


def _table(key: str, figures: Sequence[SliceFigure], metric: SliceMetric) -> Table:
    shown = figures[:MOST_SHOWN]
    more = f", the worst {MOST_SHOWN} of {len(figures)}" if len(figures) > MOST_SHOWN else ""
    about = "; the intervals are for more pictures of the same group" if key == "group" else ""
    rows = []
    for figure in shown:
        value, interval = format_estimate(figure.own, metric.format)
        rest, _ = format_estimate(figure.rest, metric.format)
        rows.append((figure.name, figure.pictures, value, interval, rest, "yes" if figure.is_worse else ""))
    header = (_name(key), "pictures", metric.name, INTERVAL, "the rest", "worse than the rest")
    return Table(f"{capital(metric.name)} by {_name(key)}{more}{about}", header, tuple(rows))
