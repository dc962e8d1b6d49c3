"""out-of-fold.json: for every picture what models say that saw neither it nor any picture of its unit."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from headstart.base.arrays import Floats
from headstart.base.errors import UserError, missing_file
from headstart.base.files import json_rows
from headstart.base.units import unit_name
from headstart.cross_validation.folds import Examined

PROBABILITY_DIGITS = 6  # decimals, as in predictions.json


class OutOfFoldRow(BaseModel):
    """One examined picture.

    Attributes:
        sha256: of the picture.
        file_name: relative to the repository root.
        label: its own.
        unit: what lay in the same fold as a whole.
        fold: the number of the fold that examined it, from 0.
        probabilities: by model (`head`, `fine_tuned`), calibrated, one a label in the order of the model's labels. The
            temperature of a fold is fitted on the other folds' answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    file_name: str
    label: str
    unit: str
    fold: int
    probabilities: dict[str, tuple[float, ...]]


def out_of_fold_json(examined: Examined, probabilities: Mapping[str, Floats]) -> str:
    """The text of out-of-fold.json, a picture a line in the order of their ids.

    Args:
        examined: the pictures.
        probabilities: by model, (n, labels).
    """
    rows = [
        OutOfFoldRow(
            sha256=image.sha256,
            file_name=image.file_name,
            label=image.label or "",
            unit=unit_name(image),
            fold=int(examined.fold[number]),
            probabilities={
                model: tuple(of_model[number].round(PROBABILITY_DIGITS).tolist())
                for model, of_model in probabilities.items()
            },
        ).model_dump()
        for number, image in enumerate(examined.images)
    ]
    return json_rows(rows)


def read_out_of_fold(path: Path) -> tuple[OutOfFoldRow, ...]:
    """The rows of an out-of-fold.json; none where there was no cross-validation (`evaluate.folds: 0`).

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return tuple(TypeAdapter(list[OutOfFoldRow]).validate_json(path.read_bytes()))
    except FileNotFoundError:
        raise missing_file(path, "run the stage that writes it: dvc repro evaluate") from None
    except ValidationError as error:
        raise UserError(f"{path}: damaged ({error.errors()[0]['msg']}); run `dvc repro` to make it anew") from None
