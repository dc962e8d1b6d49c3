"""dvc.yaml, the commands, the code and params.yaml must not drift apart."""

import ast
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import headstart
import tiny
from conftest import Project, spied
from headstart.tasks import STAGES

ROOT = Path(__file__).parent.parent
PACKAGE = Path(headstart.__file__).parent
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
LISTED: dict[str, dict[str, Any]] = PIPELINE["stages"]
# What a stage does not compute with: the thin command, the recording, and the version number.
OUTSIDE = ("headstart.cli", "headstart.tasks", "headstart.tracking")


def outs_of(stage: str) -> set[str]:
    """Paths of what DVC keeps for a stage; an entry with options is a mapping of one key."""
    outs = [*LISTED[stage].get("outs", ()), *LISTED[stage].get("metrics", ())]
    return {out if isinstance(out, str) else next(iter(out)) for out in outs}


@pytest.mark.parametrize("stage", LISTED)
def test_git_ignores_what_dvc_keeps(stage: str) -> None:
    """DVC adds to a .gitignore what is not in it: the first run would leave a changed file in a clone."""
    lines = (ROOT / f"stages/{stage}/.gitignore").read_text(encoding="utf-8").split()
    assert {f"stages/{stage}{line}" for line in lines} == outs_of(stage)


def file_of(module: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports_of(module: str) -> set[str]:
    """Modules of ours that a module imports anywhere in it, inside functions too, and the packages around them."""
    path = file_of(module)
    assert path is not None
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            named |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    around = {".".join(name.split(".")[:count]) for name in named for count in range(1, len(name.split(".")) + 1)}
    return {name for name in around if name.split(".")[0] == "headstart" and file_of(name)}


def closure(module: str, outside: tuple[str, ...] = OUTSIDE) -> set[str]:
    """All modules of ours that a module imports, and those that these import, itself included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found and ".".join(name.split(".")[:2]) not in outside:
            found.add(name)
            waiting += imports_of(name)
    return found


# Read to fill a cache that a later stage will look into; what the stage itself gives does not depend on them.
ONLY_FOR_A_CACHE = {
    "train-head": {"fine_tune.cache_frozen", "fine_tune.freeze_depth", "train.cache_gb"},
    "fine-tune": {"train.cache_gb"},
    "evaluate": {"train.cache_gb"},
}

# Not read by the stage: an edit must reach MLflow, and the last stage records the whole pipeline there.
ONLY_RECORDED = {"export": {"tracking"}}


def source_path(module: str) -> str:
    path = file_of(module)
    assert path is not None
    return "src/" + path.relative_to(PACKAGE.parent).as_posix()


def paths(entries: list[Any]) -> list[str]:
    """Paths of deps or outs, with or without options after them."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_every_stage_is_a_command_and_every_command_a_stage() -> None:
    assert list(LISTED) == list(STAGES)


@pytest.mark.parametrize("stage", LISTED)
def test_the_command_goes_through_the_launcher(stage: str) -> None:
    assert LISTED[stage]["cmd"] == f"${{launcher}} headstart {stage}"


def modules_of(stage: str) -> set[str]:
    """Modules that the stage's functions in tasks.py import, for any task."""
    tree = ast.parse((PACKAGE / "tasks.py").read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == stage.replace("-", "_")]
    return {n.module or "" for f in functions for n in ast.walk(f) if isinstance(n, ast.ImportFrom)}


def code_of(stage: str) -> list[str]:
    """Folders and files of the package that a stage lists."""
    return [path for path in paths(LISTED[stage]["deps"]) if path.startswith("src/")]


def lies_under(path: str, listed: str) -> bool:
    return path == listed or path.startswith(f"{listed}/")


@pytest.mark.parametrize("stage", LISTED)
def test_what_a_stage_imports_lies_under_what_it_lists(stage: str) -> None:
    reached = {source_path(module) for root in modules_of(stage) for module in closure(root)}
    # A wing's __init__ runs whenever one of its modules is imported; it holds no code (test_layout.py).
    reached = {path for path in reached if not path.endswith("/__init__.py")}
    unlisted = {path for path in reached if not any(lies_under(path, listed) for listed in code_of(stage))}
    assert not unlisted, "an edit of these would not run the stage again"
    unreached = {listed for listed in code_of(stage) if not any(lies_under(path, listed) for path in reached)}
    assert not unreached, "an edit of these runs the stage for nothing"


def test_the_pipeline_file_lists_wings() -> None:
    assert sum(len(code_of(stage)) for stage in LISTED) <= 53
    assert all((ROOT / path).exists() for stage in LISTED for path in code_of(stage))


def test_the_walk_finds_imports() -> None:
    assert {"headstart.fetch.sources.folder", "headstart.images.decode"} <= closure("headstart.fetch.stage")
    assert "headstart.export.int8" in closure("headstart.export.stage"), "an import inside a function"


@pytest.mark.parametrize("stage", LISTED)
def test_the_params_listed_are_in_params_yaml(stage: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for key in LISTED[stage]["params"]:
        value = params
        for part in key.split("."):
            assert part in value, key
            value = value[part]


@pytest.fixture(scope="module")
def read_in_folds(project: Project, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What evaluate reads where it repeats the training in folds."""
    root, seen = tmp_path_factory.mktemp("folds") / "project", set[str]()
    shutil.copytree(project.root, root)
    params = tiny.make_params(evaluate={"folds": 2, "folds_fine_tune": True})
    tiny.evaluate(spied(params, seen), root)
    return seen


@pytest.mark.parametrize("stage", LISTED)
def test_the_params_listed_are_those_the_stage_reads(
    stage: str, project: Project, detect_project: Project, read_in_folds: set[str]
) -> None:
    listed = LISTED[stage]["params"]
    used = project.used[stage] | detect_project.used[stage] | (read_in_folds if stage == "evaluate" else set())
    used -= ONLY_FOR_A_CACHE.get(stage, set())

    def covers(key: str, read: str) -> bool:
        return read == key or read.startswith(f"{key}.")

    unlisted = {read for read in used if not any(covers(key, read) for key in listed)}
    assert not unlisted, "an edit of these would not run the stage again"
    unread = {key for key in listed if not any(covers(key, read) for read in used)} - ONLY_RECORDED.get(stage, set())
    assert not unread, "an edit of these runs the stage for nothing"


@pytest.mark.parametrize("stage", LISTED)
@pytest.mark.parametrize("task", ["project", "detect_project"])
def test_outs_lie_in_the_stages_own_folder_and_nowhere_else(
    stage: str, task: str, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(task).root
    outs = paths(LISTED[stage]["outs"])
    assert all(path.startswith(f"stages/{stage}/") for path in outs)
    assert all((root / path).exists() for path in outs)
    left = {path.relative_to(root).as_posix() for path in (root / "stages" / stage).iterdir()}
    assert left == set(outs), "files that DVC would not keep"


@pytest.mark.parametrize("stage", LISTED)
def test_deps_on_stages_are_outs_of_other_stages(stage: str) -> None:
    outs = {path: owner for owner, some in LISTED.items() for path in paths(some["outs"])}
    outs["outside/files.json"] = "a pipeline file that fetch writes where it is needed"
    for path in paths(LISTED[stage]["deps"]):
        assert path == "data" or path.startswith("src/") or outs[path] != stage


def test_metrics_and_plots_name_outs() -> None:
    outs = {path for some in LISTED.values() for path in paths(some["outs"])}
    named = set(PIPELINE["metrics"])
    for plot in PIPELINE["plots"]:
        for options in plot.values():
            named |= set(options["y"])
    assert all(path in outs or str(Path(path).parent) in outs for path in named)


def test_plots_name_columns_that_are_there(project: Project, detect_project: Project) -> None:
    """All of them of a classifier; DVC passes over those that a detector has not, and says so."""
    plots = {name: options for plot in PIPELINE["plots"] for name, options in plot.items()}
    of_detectors = {name: plots[name] for name in ("loss", "confusion", "precision-recall")}
    for root, some in ((project.root, plots), (detect_project.root, of_detectors)):
        for options in some.values():
            for path, columns in options["y"].items():
                header = (root / path).read_text(encoding="utf-8").splitlines()[0].split(",")
                wanted = [columns] if isinstance(columns, str) else columns
                assert {*wanted, options["x"]} <= set(header), path


@pytest.mark.parametrize("stage", LISTED)
def test_every_out_is_cached(stage: str) -> None:
    """One that git keeps switches the run cache off for its whole stage."""
    assert all(isinstance(out, str) or out[next(iter(out))].get("cache", True) for out in LISTED[stage]["outs"])
