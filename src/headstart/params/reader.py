"""Reading and validating params.yaml; one line for what is wrong in it. The package reads YAML nowhere else."""

import datetime
import re
import reprlib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from headstart.base.errors import UserError, did_you_mean, missing_file
from headstart.base.one_line import one_line
from headstart.params.root import Params


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: 1e-3 is a number, and a duplicate key is an error; so is a key that is not text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                found = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise _error(f"a key must be text, found {found}; put it in quotes", key)
            if key.value in seen:
                raise _error(f"duplicate key {key.value!r}", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep=deep)
        text = str(node.value)
        shown = f"{text[:37]}...: {len(text):,} characters" if len(text) > 40 else text
        is_number = node.tag == "tag:yaml.org,2002:int"
        if is_number and len(text) > 300:  # in hexadecimals Python reads any number, and cannot print it
            raise _error(f"{shown}; if it is text, quote it", node)
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError) as error:  # such as a date that does not exist
            why = "" if len(text) > 40 else f": {error}" if isinstance(error, ValueError) else f": no {node.tag[18:]}"
            raise _error(f"{shown}{why}; if it is text, quote it", node) from None
        # YAML 1.1, in which DVC does not read, has 017 for fifteen and 1:30 for ninety.
        if is_number and re.fullmatch(r"[-+]?(0[0-7_]+|.*:.*)", text):
            raise _error(f"{text}: would be read as {value}; write that, or quote it", node)
        return value


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


COPY = "cp recipes/solar-cells.yaml"
# Pydantic's types of errors whose words are of Python, not of YAML.
_WORDS = {
    "string_type": "text belongs here; put it in quotes",
    "model_type": "a section belongs here, with keys of its own",
    "tuple_type": "a list belongs here, such as [1, 2]",
    "too_short": "an empty list; give at least one",
}

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_params(path: Path) -> Params:
    """Read and validate a params file.

    Raises:
        UserError: the file is missing, is not YAML, or a key or value is wrong; the line names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise missing_file(path, f"copy one: {COPY} {path}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: cannot be read: not UTF-8 at line {line}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(one_line(error) or f"{path}: cannot be read ({error.strerror})") from None
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except RecursionError:
        raise UserError(
            f"{path}: not valid YAML: lists or mappings within one another, too deep; take them out"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}: not valid YAML at line {line}: a control character; take it out") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise UserError(f"{path}: not valid YAML at {where}: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        found = "nothing" if data is None else type(data).__name__
        raise UserError(f"{path}: expected sections such as `model:` and `fetch:`, found {found}; {COPY} {path}")
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise UserError(format_validation_error(path, data, error)) from None


def format_validation_error(path: Path, data: object, error: ValidationError) -> str:
    """One line for the first of pydantic's errors (file, key, value, problem, fix), and how many more there are."""
    # A misspelt key is one unknown and often one missing key: the line for the unknown one is more helpful.
    errors = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first = errors[0]
    key = ".".join(str(part) or "''" for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        fix = did_you_mean(str(first["loc"][-1]), known, f"known here: {', '.join(known)}")
        line = f"{path}: {key}: unknown key; {fix}"
    elif first["type"] == "missing":
        line = f"{path}: {key}: missing; add it (recipes/solar-cells.yaml has every key)"
    else:
        message = first["msg"].removeprefix("Value error, ").partition(", unable to parse")[0]
        message = _WORDS.get(first["type"], message)
        if first["type"] == "string_type" and first["input"] is None:
            message = "text belongs here; '' for none"
        if first["type"] == "model_type":
            message += f": {', '.join(_known_keys(first['loc'])[:4])}"
        is_section = isinstance(first["input"], BaseModel | dict)  # its values would be too long for a line
        value = "" if is_section else _short_repr(first["input"])
        if key == "tracking.uri":  # what precedes an @ may be a password
            value = re.sub(r".*@", "'…@", value)
        line = ": ".join(filter(None, [str(path), key, value, f"{message[0].lower()}{message[1:]}"]))
    more = len(errors) - 1
    if first["type"] == "extra_forbidden":  # the key that was meant
        more -= any(one["type"] == "missing" and fix == f"did you mean {one['loc'][-1]!r}?" for one in errors)
    return line + (f" (and {more} more)" if more else "")


def _short_repr(value: object) -> str:
    """In at most 60 letters; a date as it stands in YAML. Lists are cut before, since aliases can make them huge."""
    if isinstance(value, datetime.date):
        return str(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = 120
    short.maxlevel, short.maxlist, short.maxdict = 3, 20, 20
    text = short.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that a section may have, found by walking the fields of the models."""
    model: type[BaseModel] = Params
    for part in location:
        if isinstance(part, int):
            continue
        models = _find_models(model.model_fields[part].annotation)
        if not models:
            return []
        model = models[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _find_models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type such as `tuple[SourceParams, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _find_models(part)]
