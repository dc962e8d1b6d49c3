"""The floors of the package: an import goes down, never up, and only to what a wing offers."""

import ast
from pathlib import Path

import pytest

import headstart

PACKAGE = Path(headstart.__file__).parent
# From the top floor down: a wing imports itself and what stands below it.
FLOORS = (
    "cli",
    "tasks",
    "serve",
    "tracking",
    "evaluation",
    "export",
    "cross_validation",
    "training",
    "augment",
    "split",
    "fetch",
    "features",
    "models",
    "metrics",
    "engine",
    "images",
    "params",
    "base",
)
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
WINGS = FLOORS[2:]


def wing_of(module: str) -> str:
    return module.removeprefix("headstart").lstrip(".").partition(".")[0]


def imports_of(path: Path) -> set[str]:
    """Full names of ours that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "headstart"}


def test_every_module_lies_in_a_wing() -> None:
    top = {path.name for path in MODULES if len(path.parts) == 1}
    assert top <= {"__init__.py", "cli.py", "tasks.py"}
    assert {path.parts[0] for path in MODULES if len(path.parts) > 1} == set(WINGS)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down(path: Path) -> None:
    own = path.parts[0].removesuffix(".py")
    if own == "__init__":
        assert not imports_of(path)
        return
    climbing = {name for name in imports_of(path) if wing_of(name) and FLOORS.index(wing_of(name)) < FLOORS.index(own)}
    assert not climbing


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_says_what_it_is_for(wing: str) -> None:
    """Its __init__ holds a docstring of one or two lines, and the names of the modules that other wings use."""
    tree = ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree) or ""
    assert doc.endswith(".")
    assert len(doc.splitlines()) <= 2
    assert len(tree.body) <= 2, "code of a wing lies in its modules"
    offered = set(ast.literal_eval(tree.body[1].value)) if len(tree.body) == 2 else set()  # type: ignore[attr-defined]
    used = {
        name.split(".")[2]
        for path in MODULES
        if path.parts[0].removesuffix(".py") != wing
        for name in imports_of(path)
        if wing_of(name) == wing
    }
    assert offered == used, "what __all__ lists, and what other wings import"
