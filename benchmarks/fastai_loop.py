"""The same transfer learning by fastai's own `fine_tune`: what benchmarks/engine.py --fastai compares with."""

import time
import warnings
from pathlib import Path
from typing import Any

from headstart.models.file import ModelSpec
from headstart.params.root import AugmentParams

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fastai's modules use what newer torches call deprecated
    from fastai.vision.all import (
        Callback,
        ImageDataLoaders,
        Normalize,
        Resize,
        ResizeMethod,
        accuracy,
        aug_transforms,
        get_image_files,
        set_seed,
        vision_learner,
    )


class Clock(Callback):  # type: ignore[misc]  # fastai has no types
    """When each fit ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_fit(self) -> None:
        self.ends.append(time.perf_counter())


def train(
    folder: Path, pretrained: dict[str, Any], card: ModelSpec, changes: AugmentParams, **how: int
) -> dict[str, float]:
    """Seconds of both phases and test accuracy; arguments as plain_loop.train has them, and `seed`.

    fastai changes pictures in batches, one zoom for both sides; shear and hue stay out.
    """
    set_seed(how["seed"])
    loaders = ImageDataLoaders.from_folder(
        folder,
        valid="val",
        item_tfms=Resize(card.input.size, method=ResizeMethod.Squish),
        batch_tfms=[*_changes(changes), Normalize.from_stats(card.input.mean, card.input.std)],
        bs=how["batch_size"],
        num_workers=how["workers"],
    )
    clock = Clock()
    learner = vision_learner(
        loaders, card.backbone, normalize=False, pretrained=False, metrics=accuracy, cbs=clock, path=folder
    )
    learner.model[0].model.load_state_dict(pretrained)
    begin = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(how["tune_epochs"], freeze_epochs=how["head_epochs"])
        test = loaders.test_dl(get_image_files(folder / "test"), with_labels=True)
        middle, end = clock.ends
        right = learner.validate(dl=test)[1]
    return {"head": middle - begin, "tune": end - middle, "accuracy": float(right)}


def _changes(changes: AugmentParams) -> list[Any]:
    found: list[Any] = aug_transforms(
        do_flip=changes.horizontal_flip > 0,
        flip_vert=changes.vertical_flip > 0,
        max_rotate=changes.rotation,
        max_zoom=1 + changes.zoom,
        max_lighting=max(changes.brightness, changes.contrast),
        max_warp=0,
    )
    return found
