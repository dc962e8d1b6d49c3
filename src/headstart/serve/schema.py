"""What goes over the wire, for the server's JSON and for the files of the static demo."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Box(_Message):
    """Something found: `box` is left, top, right, bottom in pixels of the upright picture."""

    label: str
    score: FiniteFloat
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


class Found(_Message):
    """What the model says of a picture: probabilities (classify) or boxes (detect), the other one is null.

    Boxes are the unsure ones too, the surest first: believe those that reach `threshold` of /model. What is no number
    (nan) is no answer: JSON would have null for it.
    """

    probabilities: dict[str, FiniteFloat] | None = None
    boxes: list[Box] | None = None


class Answer(Found):
    """What the model says of one picture, by the name it was posted under."""

    name: str
    width: Annotated[int, Field(description="pixels of the upright picture")]
    height: int
    label: Annotated[str | None, Field(description="the most probable label; null for boxes")] = None
    milliseconds: Annotated[float, Field(description="from the bytes to the answer, waiting included")]


class Answers(_Message):
    """One answer a picture, in the order posted."""

    answers: list[Answer]


class Problem(_Message):
    """Why there is no answer, in a sentence."""

    detail: str


class Health(_Message):
    """The server answers."""

    status: str = "ok"


class Figure(_Message):
    """A test figure with its 95 % interval. `note` says of which model it is, if not of the one that answers."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""


class Said(_Message):
    """How often a label was the answer in the test, and what the pictures really were; of a detector, the boxes.

    Of a detector one answer and one truth is `background`: nothing was found there, or nothing is there.
    """

    times: int
    really: dict[str, int]


class Example(_Message):
    """A test picture to try: addresses of the picture and of a thumbnail, what it is and what the model said.

    Of a detector `fault` says what it did wrong there, such as "misses a dog"; empty where it did not. `credit` is its
    author and licence, as far as they are known.
    """

    picture: str
    thumbnail: str
    label: str | None = None
    predicted: str | None = None
    confidence: float | None = None
    fault: str = ""
    credit: str = ""


class About(_Message):
    """The model: labels, figures on its test pictures, what it gets wrong, and its card (Markdown)."""

    task: str
    labels: list[str]
    input: dict[str, object]
    figures: list[Figure] = []
    pictures: int = 0
    said: dict[str, Said] = {}
    examples: list[Example] = []
    threshold: Annotated[float, Field(description="boxes with a lower score are not shown at first")] = 0.5
    card: str = ""
