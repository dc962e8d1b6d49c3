"""Pydantic models of the HTTP API's JSON, and of the static demo's model.json."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoredBox(_Message):
    """A detected box: `box` is xmin, ymin, xmax, ymax in pixels of the upright picture."""

    label: str
    score: FiniteFloat
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class Classification(_Message):
    """What a classifier says of one picture, beside the probabilities; all null for a detector."""

    answer: Annotated[
        str | None, Field(description="the label, `cat or dog`, `one of 5 labels`, or `none of these`")
    ] = None
    labels_in_set: Annotated[
        list[str] | None, Field(description="labels that the picture may have, the most probable one first")
    ] = None
    unknown: Annotated[bool | None, Field(description="whether the picture is none of the labels")] = None
    strangeness: Annotated[
        FiniteFloat | None, Field(description="distance from the training pictures; null: an older model")
    ] = None


class ModelOutput(Classification):
    """The model's output for one picture: probabilities (classify) or boxes (detect); the other one is null.

    Boxes below the threshold are included, the highest score first: filter them by `threshold` of /model. NaN and
    infinity are rejected, because JSON has no such numbers.
    """

    probabilities: dict[str, FiniteFloat] | None = None
    boxes: list[ScoredBox] | None = None


class ImagePrediction(ModelOutput):
    """The prediction for one picture, under the file name it was posted with."""

    name: str
    width: Annotated[int, Field(description="pixels of the upright picture")]
    height: int
    label: Annotated[str | None, Field(description="the most probable label; null for boxes")] = None
    milliseconds: Annotated[float, Field(description="from the bytes to the prediction, time in the queue included")]


class PredictResponse(_Message):
    """One prediction a picture, in the order posted."""

    predictions: list[ImagePrediction]


class ErrorResponse(_Message):
    """Why there are no predictions, in one sentence."""

    detail: str


class HealthResponse(_Message):
    """The server is up."""

    status: str = "ok"


class MetricEstimate(_Message):
    """A test metric with its 95 % confidence interval. `note`: what else was measured, or instead."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""


class ConfusionColumn(_Message):
    """One column of the test set's confusion matrix: `total` predictions of a label, and their actual labels.

    Counts pictures of a classifier, boxes of a detector without second boxes on one object. A detector has `background`
    too: as a prediction it counts missed boxes (false negatives), as an actual label boxes on background (false
    positives).
    """

    total: int
    actual: dict[str, int]


class Example(_Message):
    """A test picture to try: URLs of the picture and of its thumbnail, actual and predicted label, confidence.

    Of a detector `mistake` is the error in that picture, such as "dog missed (false negative)"; empty if there is
    none. `credit` is author and licence, as far as they are known.
    """

    picture: str
    thumbnail: str
    label: str | None = None
    predicted: str | None = None
    confidence: float | None = None
    mistake: str = ""
    credit: str = ""


class ModelInfo(_Message):
    """The model: labels, test metrics, confusion matrix, test pictures to try, and the model card (Markdown)."""

    task: str
    labels: list[str]
    input: dict[str, object]
    class_agnostic_nms: Annotated[bool, Field(description="one thing gets one label; of a detector")] = False
    metrics: list[MetricEstimate] = []
    pictures: Annotated[int, Field(description="size of the test set")] = 0
    confusion: Annotated[dict[str, ConfusionColumn], Field(description="by predicted label")] = {}
    outcomes: Annotated[
        dict[str, int], Field(description="boxes of a detector at its threshold, by outcome; empty of a classifier")
    ] = {}
    examples: list[Example] = []
    threshold: Annotated[float, Field(description="of the scores of boxes, chosen on the validation set")] = 0.5
    unknown_above: Annotated[
        float | None, Field(description="strangeness above which a picture is none of the labels; null: there is none")
    ] = None
    set_thresholds: Annotated[
        list[float] | None, Field(description="probability from which a label is in a picture's set, by label")
    ] = None
    card: str = ""
