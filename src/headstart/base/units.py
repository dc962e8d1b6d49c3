"""Units of a set of pictures: what a split keeps together, and what every interval resamples together."""

from collections.abc import Sequence

import numpy as np

from headstart.base.arrays import Ints
from headstart.base.manifest import Image


def unit_name(image: Image) -> str:
    """The unit of a picture: the split's, else its group, else the picture alone."""
    return image.unit or (f"group {image.group}" if image.group is not None else image.sha256)


def unit_numbers(images: Sequence[Image]) -> Ints:
    """The number of each picture's unit, (n,), from 0 in the order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(unit_name(image), len(numbers)) for image in images], dtype=np.int64)
