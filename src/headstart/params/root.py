"""params.yaml as a typed, validated, frozen model, and its sections; reader.py reads the file."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidatorFunctionWrapHandler, WrapValidator, field_validator, model_validator

from headstart.base.errors import did_you_mean
from headstart.params.fetch import FetchParams
from headstart.params.ignored import find_ignored_option
from headstart.params.section import Count, Fraction, FractionBelowOne, Positive, Section
from headstart.params.training import FineTuneParams, TrainHeadParams, TrainParams

TORCHVISION_DETECTORS = (  # complete, with a backbone and a feature pyramid of their own
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
DETECTORS = ("fcos", "retinanet", "fasterrcnn", *TORCHVISION_DETECTORS)
CHAMPION_METRICS = {  # task -> metrics that may compare two models; the first one is the default
    "classify": ("accuracy", "balanced_accuracy", "roc_auc", "log_loss"),
    "detect": ("AP50", "AP", "AP75"),
}


class TrackingParams(Section):
    """Where runs are recorded. MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME take precedence over both."""

    uri: str = ""  # empty: sqlite:///mlflow.db at the repository root
    experiment: Annotated[str, Field(min_length=1, max_length=500)] = "headstart"  # MLflow's limits
    timeout: Annotated[float, Field(gt=0, le=86400)] = 60  # seconds that recording may take in all, for each stage

    @field_validator("uri")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        scheme, has_scheme, rest = uri.partition("://")
        if uri.startswith("file:") or (uri and not has_scheme and not uri.startswith(("databricks", "uc"))):
            raise ValueError("a folder, and MLflow 3 keeps runs in a database; give for example sqlite:///mlflow.db")
        if scheme == "sqlite" and len(rest) < 2:
            raise ValueError("no file, so that nothing is kept; give for example sqlite:///mlflow.db")
        return uri


class HeadParams(Section):
    """A classifier's new head on the backbone's features.

    `linear` and `kernel` are convex problems, solved to their end; `mlp` has hidden layers and is trained in epochs.
    """

    kind: Literal["linear", "mlp", "kernel"] = "linear"  # mlp where only `hidden` is given
    features: Literal["last", "blocks"] = "last"  # blocks: means and maxima of several blocks beside the last features
    hidden: tuple[Count, ...] = ()
    dropout: FractionBelowOne = 0.2  # while the head trains in epochs: an mlp in both stages, the others in fine-tune
    batch_norm: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether train-head solves it instead of training it in epochs."""
        return self.kind != "mlp"

    @model_validator(mode="before")
    @classmethod
    def _kind_of_hidden(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("hidden") and "kind" not in values:
            return {**values, "kind": "mlp"}
        return values

    @model_validator(mode="after")
    def _check_hidden(self) -> "HeadParams":
        if self.kind == "mlp" and not self.hidden:
            raise ValueError("kind: mlp needs hidden layers; give hidden: [64], say, or kind: linear")
        if self.kind != "mlp" and self.hidden:
            raise ValueError(f"kind: {self.kind} has no hidden layers; give hidden: [], or kind: mlp")
        return self


_SIDE_ADAPTER: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=16, le=2048)])


def _validate_image_size(value: Any, _: ValidatorFunctionWrapHandler) -> int | tuple[int, int]:
    if not isinstance(value, list | tuple | str | dict):
        return _SIDE_ADAPTER.validate_python(value)
    if isinstance(value, str | dict) or len(value) != 2:
        raise ValueError("give one side, such as 320, or height and width, such as [288, 512]")
    height, width = (_SIDE_ADAPTER.validate_python(side) for side in value)
    return height if height == width else (height, width)


class TilesParams(Section):
    """How large pictures are cut for a detector: each tile is an input of its own."""

    size: Annotated[int, Field(ge=32, le=4096)]  # pixels of the picture
    overlap: Annotated[float, Field(ge=0, le=0.75)] = 0.2  # share of the size that neighbours have in common


class ModelParams(Section):
    """The network: any timm backbone, where its weights come from, and the head on it; or a detector."""

    backbone: str  # a name of timm's; empty: `detector` is one of TORCHVISION_DETECTORS
    weights: str  # bundled | hub | none | path of a .safetensors, .pth or .pt file
    # Side of a square, or a detector's height and width; in pixels.
    image_size: Annotated[int | tuple[int, int], WrapValidator(_validate_image_size)]
    resize: Literal["squash", "crop", "letterbox"] = "squash"
    tiles: TilesParams | None = None  # None: the whole picture is resized to image_size
    head: HeadParams = HeadParams()
    detector: str = ""  # one of DETECTORS; empty for task: classify
    # Channels of the feature pyramid of a detector on a timm backbone.
    pyramid: Annotated[int, Field(ge=64, multiple_of=32)] = 256
    # A detector's NMS also drops the lower-scoring of two boxes of different labels. auto: where the annotated boxes of
    # different labels hardly overlap, and the F1 on the validation set is no lower.
    class_agnostic_nms: Literal["auto", True, False] = "auto"

    @property
    def is_complete_detector(self) -> bool:
        """Whether it is one of torchvision's detectors, with a backbone and a feature pyramid of its own."""
        return self.detector in TORCHVISION_DETECTORS

    @field_validator("detector")
    @classmethod
    def _check_detector(cls, name: str) -> str:
        if name and name not in DETECTORS:
            fix = did_you_mean(name, DETECTORS, f"known are {', '.join(DETECTORS)}", count=2, cutoff=0.3)
            raise ValueError(f"no such detector; {fix}")
        return name

    @model_validator(mode="after")
    def _check_backbone(self) -> "ModelParams":
        if self.is_complete_detector and self.backbone:
            raise ValueError(
                f"{self.detector} has a backbone of its own, not {self.backbone!r}; give model.backbone: ''"
            )
        return self


class SplitParams(Section):
    """Fractions of the pictures whose split no source pins, and what counts as the same picture."""

    train: Fraction = 0.7
    val: Fraction = 0.15
    test: Fraction = 0.15
    near_duplicate_bits: Annotated[int, Field(ge=-1, le=64)] = 10

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitParams":
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, they are {self.train + self.val + self.test:g}")
        return self


class AugmentParams(Section):
    """Random transforms of training pictures: a probability or a largest amount each; `copies` of each are stored."""

    copies: Annotated[int, Field(ge=0, le=100)] = 0
    horizontal_flip: Fraction = 0.5
    vertical_flip: Fraction = 0.0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Fraction = 0.0
    zoom: FractionBelowOne = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    brightness: FractionBelowOne = 0.0
    contrast: FractionBelowOne = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    noise: Fraction = 0.0
    mosaic: Fraction = 0.0  # probability that four pictures are combined into one, for a detector


class EvaluateParams(Section):
    """The evaluation on the test split."""

    # Draws: of a detector's test pictures, for its intervals; of a perfectly calibrated classifier, for its ECE.
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    folds: Annotated[int, Field(ge=0, le=20)] = 0  # of the cross-validation; 0: none
    folds_fine_tune: bool = False  # the cross-validation repeats fine-tuning too, not only the head
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9  # share of prediction sets that contain the label
    slices: tuple[str, ...] = ()  # source, group, size, brightness, or a column of the tables
    gallery: Annotated[int, Field(ge=0)] = 24  # pictures, at most

    @field_validator("folds")
    @classmethod
    def _check_folds(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("one fold would leave nothing to learn from; give 0, or 2 to 20")
        return folds


class ExportParams(Section):
    """The ONNX file."""

    tolerance: Positive = 1e-3  # largest difference between the outputs of torch and of onnxruntime
    quantize: Literal["none", "int8"] = "none"
    max_drop: Fraction = 0.03  # of accuracy or AP on test that int8 may cost, at the worst end of the interval
    # A name in MLflow's model registry; empty: not registered. Not named `register`, which pydantic's models have.
    register_as: Annotated[str, Field(alias="register", pattern="^[^/:]*$")] = ""
    champion_metric: str = ""  # empty: the task's first one in CHAMPION_METRICS
    # worse nowhere: on no slice of evaluate.slices, and on no group
    champion_rule: Literal["better", "better_and_worse_nowhere"] = "better"


class Params(Section):
    """All of params.yaml."""

    task: Literal["classify", "detect"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    launcher: str = ""  # put before the commands of the pipeline, such as torchrun
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
        """The metric by which one model is better than another."""
        return self.export.champion_metric or CHAMPION_METRICS[self.task][0]

    @model_validator(mode="after")
    def _check_options(self) -> "Params":
        if self.task == "detect" and not self.model.detector:
            raise ValueError(f"model.detector: missing; give one of {', '.join(DETECTORS)}")
        if problem := find_ignored_option(self):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _check_image_size(self) -> "Params":
        if isinstance(size := self.model.image_size, tuple) and (self.task == "classify" or self.model.tiles):
            what = "a tile is square" if self.model.tiles else "a classifier's input is square"
            raise ValueError(f"model.image_size: {list(size)}: {what}; give one side, such as {max(size)}")
        return self

    @model_validator(mode="after")
    def _check_batch_norm(self) -> "Params":
        for stage, section in (("train_head", self.train_head), ("fine_tune", self.fine_tune)):
            if section.batch_size > 1:
                continue
            if self.model.head.batch_norm:
                key, off = "model.head.batch_norm: true", "model.head.batch_norm: false"
            elif stage == "fine_tune" and self.fine_tune.batch_norm == "update" and self.fine_tune.freeze_depth != -1:
                key, off = "fine_tune.batch_norm: update", "fine_tune.batch_norm: fixed"
            else:
                continue
            raise ValueError(f"{stage}.batch_size: 1: {key} needs two pictures in a batch; give 2 or more, or {off}")
        return self

    @model_validator(mode="after")
    def _check_champion_metric(self) -> "Params":
        known = CHAMPION_METRICS[self.task]
        if self.champion_metric not in known:
            raise ValueError(
                f"export.champion_metric: {self.champion_metric!r}: not a metric of task: {self.task}; give one of "
                f"{', '.join(known)}"
            )
        return self
