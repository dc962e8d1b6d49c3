"""Sets of pictures made up for tests of cross-validation."""

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.base.manifest import Image
from headstart.cross_validation.folds import Examined, examine

LABELS = ("ant", "bee")


def image(number: int, label: str, **more: object) -> Image:
    values = {"id": number, "file_name": f"{number}.png", "width": 9, "height": 9, "sha256": f"{number:064x}"}
    return Image.model_validate(values | {"source": "s", "label": label} | more)


def gaussian(
    pictures: int, seed: int, *, per_unit: int = 1, gap: float = 2.0, width: int = 4
) -> tuple[Examined, Floats]:
    """Two labels, features (pictures, width) of unit variance, `gap` apart; the pictures of a unit have one label."""
    random = np.random.default_rng(seed)
    units = np.arange(pictures) // per_unit
    targets: Ints = random.permutation(np.arange(units[-1] + 1) % 2)[units]
    features = random.normal(size=(pictures, width))
    features[:, 0] += gap * targets
    images = [image(n, LABELS[t], unit=f"unit {u}") for n, (t, u) in enumerate(zip(targets, units, strict=True))]
    examined, _ = examine(images, LABELS, 5, seed)
    return examined, features
