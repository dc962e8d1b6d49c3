"""What each task (classify, detect) does in each stage. A third task is a third entry in TASKS."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from headstart.params.root import Params
    from headstart.training.loop import TrainLoop

STAGES = ("fetch", "weights", "split", "augment", "train-head", "fine-tune", "evaluate", "export")
Stage = Callable[["Params", Path], None]  # all of params.yaml, the repository root


class Training(Protocol):
    """A training stage; the learning-rate range test hands it a loop of its own."""

    def __call__(self, params: "Params", root: Path, loop: "TrainLoop | None" = None) -> None:
        """`loop`: the training loop; None: `training.loop.train_loop`."""


class Task(Protocol):
    """One method a stage, named as the stage is: it imports what the task needs there, and returns the function."""

    def fetch(self) -> Stage:
        """Pictures with what the task learns from: one label, or boxes."""

    def split(self) -> Stage:
        """Stratified by the picture's label, or by the labels of its boxes."""

    def augment(self) -> Stage:
        """Transformed copies of training pictures, boxes transformed with them."""

    def train_head(self) -> Training:
        """A new head on the frozen backbone: build the model, its batches, loss and validation."""

    def fine_tune(self) -> Training:
        """The same for the backbone above freeze_depth and the head."""

    def evaluate(self) -> Stage:
        """Both models on the test set: metrics, plots, gallery, report."""

    def export(self) -> Stage:
        """The model as ONNX, proven equal."""


class _Pictures:
    """The stages before training, where tasks differ only in what a picture carries."""

    boxes: bool  # a picture carries boxes; else one label

    def fetch(self) -> Stage:
        from headstart.fetch.stage import fetch

        return partial(fetch, boxes=self.boxes)

    def split(self) -> Stage:
        from headstart.split.stage import split

        return partial(split, boxes=self.boxes)

    def augment(self) -> Stage:
        from headstart.augment.stage import augment

        return partial(augment, boxes=self.boxes)


class Classify(_Pictures):
    """One label a picture: backbone, pooled features, head."""

    boxes = False

    def train_head(self) -> Training:
        from headstart.training.train_head import train_classifier_head

        return train_classifier_head

    def fine_tune(self) -> Training:
        from headstart.training.classifier_batches import load_classifier
        from headstart.training.fine_tune import fine_tune

        return partial(fine_tune, load=load_classifier)

    def evaluate(self) -> Stage:
        from headstart.evaluation.classifier.evaluate import evaluate_classifier
        from headstart.evaluation.stage import evaluate

        return partial(evaluate, evaluate_models=evaluate_classifier)

    def export(self) -> Stage:
        from headstart.export.onnx_classifier import export_classifier
        from headstart.export.stage import export

        return partial(export, export_model=export_classifier, metric="accuracy")


class Detect(_Pictures):
    """Boxes in a picture: backbone, feature pyramid, detection head; or a complete torchvision detector."""

    boxes = True

    def train_head(self) -> Training:
        from headstart.training.train_detector_head import train_detector_head

        return train_detector_head

    def fine_tune(self) -> Training:
        from headstart.training.detector_batches import load_detector
        from headstart.training.fine_tune import fine_tune

        return partial(fine_tune, load=load_detector)

    def evaluate(self) -> Stage:
        from headstart.evaluation.detector.evaluate import evaluate_detector
        from headstart.evaluation.stage import evaluate

        return partial(evaluate, evaluate_models=evaluate_detector)

    def export(self) -> Stage:
        from headstart.export.onnx_detector import export_detector
        from headstart.export.stage import export

        return partial(export, export_model=export_detector, metric="AP")


TASKS: Mapping[str, Task] = {"classify": Classify(), "detect": Detect()}


def weights() -> Stage:
    """The weights stage, the same for all tasks."""
    from headstart.models.weights import weights

    return weights


def load(stage: str, params: "Params") -> Stage:
    """Import a stage's function for the task of `params`; calling it runs the stage."""
    if stage == "weights":
        return weights()
    function: Stage = getattr(TASKS[params.task], stage.replace("-", "_"))()
    return function


def run(stage: str, params: "Params", root: Path) -> None:
    """Run one stage of the pipeline; torch's settings are then as they were."""
    function = load(stage, params)
    if "torch" not in sys.modules:  # fetch runs without it
        function(params, root)
        return
    from headstart.engine.device import preserved_torch_settings

    with preserved_torch_settings():
        function(params, root)
