"""params.yaml as typed, checked, frozen sections; params_file.py reads it."""

import difflib
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from headstart.fetch_params import FetchParams
from headstart.fit_params import FineTuneParams, FitParams, TrainHeadParams, TrainParams, wrong_for_detectors
from headstart.section import SPLITS, Count, Fraction, Positive, Section, Split

__all__ = [
    "SPLITS",
    "FetchParams",
    "FineTuneParams",
    "FitParams",
    "Params",
    "Section",
    "Split",
    "TrainHeadParams",
    "TrainParams",
]


WHOLE = (  # complete detectors of torchvision's
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
DETECTORS = ("fcos", "retinanet", "fasterrcnn", *WHOLE)
CHAMPION_METRICS = {
    "classify": ("accuracy", "balanced_accuracy", "roc_auc", "log_loss"),
    "detect": ("AP50", "AP", "AP75"),
}


class TrackingParams(Section):
    """Where runs are recorded. MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME win over both."""

    uri: str = ""  # empty: sqlite:///mlflow.db at the repository root
    experiment: str = "headstart"


class HeadParams(Section):
    """The new head: hidden layers, then one linear layer to the labels."""

    hidden: tuple[Count, ...] = ()
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    batch_norm: bool = False


class ModelParams(Section):
    """The network: any timm backbone, where its weights come from, and the head on top."""

    backbone: str  # empty: `detector` is one of WHOLE, with a backbone of its own
    weights: str  # bundled | hub | none | path of a .safetensors, .pth or .pt file
    image_size: Annotated[int, Field(ge=16, le=2048)]
    resize: Literal["squash", "crop"] = "squash"
    head: HeadParams = HeadParams()  # of a classifier
    detector: str = ""  # of a detector: one of DETECTORS
    pyramid: Annotated[int, Field(ge=64, multiple_of=32)] = 256  # channels of a detector's feature pyramid

    @field_validator("detector")
    @classmethod
    def _known(cls, name: str) -> str:
        if name and name not in DETECTORS:
            near = difflib.get_close_matches(name, DETECTORS, n=2, cutoff=0.3)
            known = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(DETECTORS)}"
            raise ValueError(f"no such detector; {known}")
        return name

    @model_validator(mode="after")
    def _one_backbone(self) -> "ModelParams":
        if self.detector in WHOLE and self.backbone:
            raise ValueError(
                f"{self.detector} has a backbone of its own, not {self.backbone!r}; give model.backbone: ''"
            )
        return self


class SplitParams(Section):
    """Shares of the pictures that no source has pinned, and what counts as the same picture."""

    train: Fraction = 0.7
    val: Fraction = 0.15
    test: Fraction = 0.15
    near_duplicate_bits: Annotated[int, Field(ge=-1, le=64)] = 4

    @model_validator(mode="after")
    def _sum_is_one(self) -> "SplitParams":
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, they are {self.train + self.val + self.test:g}")
        return self


class AugmentParams(Section):
    """How far a training picture may be moved and changed; `copies` of each are stored."""

    copies: Annotated[int, Field(ge=0, le=100)] = 0
    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Fraction = 0.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    noise: Fraction = 0.0
    mosaic: Fraction = 0.0  # of a detector: how often four pictures make one


class EvaluateParams(Section):
    """What the exam looks like."""

    bootstrap: Annotated[int, Field(ge=100)] = 1000
    gallery: Annotated[int, Field(ge=0)] = 24


class ExportParams(Section):
    """The ONNX file."""

    tolerance: Positive = 1e-3
    quantize: Literal["none", "int8"] = "none"
    max_drop: Fraction = 0.01  # of accuracy on test, that int8 may cost
    # Not `register`, which pydantic's models have already.
    register_as: Annotated[str, Field(alias="register", pattern="^[^/:]*$")] = ""  # a name in MLflow; empty: not
    champion_metric: str = ""  # empty: the first of its task in CHAMPION_METRICS


class Params(Section):
    """All of params.yaml."""

    task: Literal["classify", "detect"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    launcher: str = ""
    tracking: TrackingParams = TrackingParams()
    model: ModelParams
    fetch: FetchParams
    split: SplitParams
    augment: AugmentParams
    train: TrainParams
    train_head: TrainHeadParams
    fine_tune: FineTuneParams
    evaluate: EvaluateParams
    export: ExportParams

    @property
    def champion_metric(self) -> str:
        """By which one model is better than another."""
        return self.export.champion_metric or CHAMPION_METRICS[self.task][0]

    @model_validator(mode="after")
    def _task_has_its_model(self) -> "Params":
        if self.task == "classify" and (self.model.detector or self.augment.mosaic):
            raise ValueError("model.detector and augment.mosaic are for task: detect; take them out, or set the task")
        if self.task == "detect":
            if not self.model.detector:
                raise ValueError(f"model.detector is missing; give one of {', '.join(DETECTORS)}")
            if wrong := wrong_for_detectors(self.train_head, self.fine_tune):
                raise ValueError(f"{wrong[0]} is for task: classify; give {wrong[1]}")
            if self.export.quantize != "none":
                raise ValueError("export.quantize is for task: classify; give none")
        return self

    @model_validator(mode="after")
    def _metric_is_of_the_task(self) -> "Params":
        known = CHAMPION_METRICS[self.task]
        if self.champion_metric not in known:
            raise ValueError(
                f"export.champion_metric: {self.champion_metric!r} is none of task: {self.task}; give one of "
                f"{', '.join(known)}"
            )
        return self
