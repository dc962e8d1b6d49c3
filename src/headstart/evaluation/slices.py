"""`evaluate.slices`: accuracy by source, group, size, brightness or a column of the tables, the worst slice first."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ImageStat

from headstart.base.arrays import Floats, Ints
from headstart.base.errors import UserError, did_you_mean
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map
from headstart.base.stored_picture import open_stored_picture
from headstart.evaluation.metrics_json import rounded
from headstart.evaluation.report_tables import Table, counted, format_estimate, format_percent
from headstart.metrics.slices import (
    LEAST_PICTURES,
    SliceFigure,
    Slicing,
    slice_by_number,
    slice_by_value,
    slice_figures,
)

OF_EVERY_PICTURE = ("source", "group", "size", "brightness", "confidence")
MOST_SHOWN = 20  # slices of one property in the report and in metrics.json


@dataclass(frozen=True)
class ExaminedPictures:
    """Pictures that were predicted by a model that did not learn from them.

    Attributes:
        images: n of them.
        correct: 1.0 where the prediction is the label, else 0.0, (n,).
        units: the number of each picture's unit, (n,).
        what: which pictures and which model, as in `the 44 test pictures, predicted by the exported model`.
    """

    images: Sequence[Image]
    correct: Floats
    units: Ints
    what: str


@dataclass(frozen=True)
class SliceSection:
    """The report's section: what the figures are of, what is worse than the rest, and a table for each property."""

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
    if key == "confidence":
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
    figures = slice_figures(divide(examined.images, keys, root), examined.correct, examined.units)
    if not figures:
        return {}, None
    by_key: dict[str, list[SliceFigure]] = {}
    for figure in figures:
        by_key.setdefault(figure.key, []).append(figure)
    metrics = {key: {figure.name: _json(figure) for figure in own[:MOST_SHOWN]} for key, own in by_key.items()}
    section = SliceSection(
        intro=f"Of {examined.what}. The worst slice comes first. The intervals are wider than elsewhere: they hold for "
        f"all {counted(len(figures), 'slice')} at once, since among many one is bad by chance. A slice of fewer than "
        f"{LEAST_PICTURES} pictures has no row of its own.",
        worse=[worse_sentence(figure, len(figures)) for figure in figures if figure.is_worse],
        tables=[_table(key, own) for key, own in by_key.items()],
    )
    return {"slices": metrics}, section


def worse_sentence(figure: SliceFigure, looks: int) -> str:
    """That a slice is worse than the rest, which the number of slices looked at does not explain."""
    assert figure.accuracy.value is not None
    assert figure.rest.value is not None
    return (
        f"On pictures of {figure.key} “{figure.name}” the accuracy is {format_percent(figure.accuracy.value)} of "
        f"{counted(figure.pictures, 'picture')}, on the rest {format_percent(figure.rest.value)}: worse by more than "
        f"chance, also after looking at {counted(looks, 'slice')}."
    )


def _json(figure: SliceFigure) -> dict[str, object]:
    accuracy = figure.accuracy
    interval = {"accuracy": accuracy.value, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    return {**rounded(interval), "pictures": figure.pictures}


def _table(key: str, figures: Sequence[SliceFigure]) -> Table:
    shown = figures[:MOST_SHOWN]
    more = f", the worst {MOST_SHOWN} of {len(figures)}" if len(figures) > MOST_SHOWN else ""
    about = "; the intervals are for more pictures of the same group" if key == "group" else ""
    rows = []
    for figure in shown:
        value, interval = format_estimate(figure.accuracy, format_percent)
        rest, _ = format_estimate(figure.rest, format_percent)
        rows.append((figure.name, figure.pictures, value, interval, rest, "yes" if figure.is_worse else ""))
    header = (key, "pictures", "accuracy", "95\N{NO-BREAK SPACE}% interval", "the rest", "worse than the rest")
    return Table(f"Accuracy by {key}{more}{about}", header, tuple(rows))
