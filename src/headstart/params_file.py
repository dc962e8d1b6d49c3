"""Read params.yaml, and say in one line what is wrong with it. The only reader of YAML in the package."""

import difflib
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from headstart.errors import UserError
from headstart.params import Params


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 1e-3 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load(path: Path) -> Params:
    """Read and check a params file.

    Raises:
        UserError: the file is missing, is no YAML, or a key or value is wrong; the line names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy one: cp recipes/solar-cells.yaml {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise UserError(f"{path}: not valid YAML at {where}: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected sections such as `model:` and `fetch:`, found {type(data).__name__}")
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise UserError(explain(path, data, error)) from None


def explain(path: Path, data: object, error: ValidationError) -> str:
    """Pydantic's findings in the user's words, the first one whole: file, key, value, fix."""
    # A key misspelt is one unknown and often one missing: the unknown one has the better line.
    findings = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    first = findings[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _siblings(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        line = f"{path}: {key}: unknown key; {fix}"
    elif first["type"] == "missing":
        line = f"{path}: {key}: missing; add it (recipes/solar-cells.yaml has every key)"
    else:
        message = first["msg"].removeprefix("Value error, ")
        whole = isinstance(first["input"], BaseModel | dict)  # of which the message says more
        said = [str(path), key, "" if whole else _shown(first["input"]), f"{message[0].lower()}{message[1:]}"]
        line = ": ".join(filter(None, said))
    more = len(findings) - 1
    return line + (f" (and {more} more)" if more else "")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The keys known at a place in the params, found by walking the models' own fields."""
    model: type[BaseModel] = Params
    for part in location:
        if isinstance(part, int):
            continue
        found = _models_in(model.model_fields[part].annotation)
        if not found:
            return []
        model = found[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
