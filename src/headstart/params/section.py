"""The base class and the number types of params.yaml's sections."""

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of params.yaml: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's yes and no are true and false, which Python, and so pydantic, takes for 1 and 0."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if (
            isinstance(value, bool)
            and not {bool, value} & {kind, *_parts(kind)}
            and {int, float} & {kind, *_parts(kind)}
        ):
            raise ValueError("a number belongs here")
        return value


def _parts(kind: Any) -> set[Any]:
    """The types and literal values within a type such as `tuple[int, ...] | None`."""
    return {found for part in get_args(kind) for found in {part, *_parts(part)}}
