"""params.yaml for a test: a recipe with an edit, and the one error line that loading it gives."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.base.errors import UserError
from headstart.params.reader import load_params

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "recipes/solar-cells.yaml").read_text(encoding="utf-8")
DETECTOR_RECIPE = (ROOT / "recipes/detector.yaml").read_text(encoding="utf-8")


def write_params(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def edit_params(folder: Path, edits: dict[str, Any], recipe: str = RECIPE) -> Path:
    """A recipe with some keys (`section.key`) set to values, or taken out (`...`)."""
    data = yaml.safe_load(recipe)
    for key, value in edits.items():
        *sections, last = key.split(".")
        section = data
        for name in sections:
            section = section[name]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return write_params(folder, yaml.safe_dump(data, sort_keys=False))


def error_line(path: Path) -> str:
    """The line that loading fails with, after the file's name."""
    with pytest.raises(UserError) as caught:
        load_params(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")
