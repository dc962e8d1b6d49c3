"""params.yaml as a whole: recipes load, and what a task or a detector must have is there."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from edited_recipe import DETECTOR_RECIPE, RECIPE, ROOT, error_line, write_params
from headstart.params.reader import load_params
from headstart.params.root import Params
from headstart.params.training import LOOP_OPTIONS


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    load_params(path)


def test_the_default_params_are_a_recipe() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == RECIPE


def test_values_and_types() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.fine_tune.lr == 0.0008  # written 8e-4, which plain YAML takes for text
    assert params.model.head.hidden == ()
    assert params.fetch.sources[0].table == "data/solar-cells.csv"


def test_params_do_not_change_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_params(ROOT / "params.yaml").seed = 1  # type: ignore[misc]


def test_every_key_is_in_the_default_recipe_but_for_those_of_some_kinds_of_source() -> None:
    given = yaml.safe_load(RECIPE)
    for name, field in Params.model_fields.items():
        assert name in given, f"{name} cannot be found by who reads params.yaml"
        section = field.annotation
        for key, inner in getattr(section, "model_fields", {}).items():
            of_others = f"{name}.{key}" in (  # of detectors, and of heads that train in epochs
                "model.pyramid",
                "model.tiles",
                "model.class_agnostic_nms",
                "augment.mosaic",
                "fine_tune.warmup_steps",  # the recipe has warmup_epochs
                *(f"train_head.{option}" for option in LOOP_OPTIONS),
            )
            assert (inner.alias or key) in given[name] or name == "fetch" or of_others, f"{name}.{key}"


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (
            ("champion_metric: AP50", "champion_metric: accuracy"),
            "export.champion_metric: 'accuracy': not a metric of task: detect; give one of AP50, ",
        ),
        (("detector: fcos", "detector: fcoss"), "model.detector: 'fcoss': no such detector; did you mean 'fcos'"),
        (("detector: fcos", "detector: zzz"), "model.detector: 'zzz': no such detector; known are fcos, "),
        (("detector: fcos", "detector: ''"), "model.detector: missing; give one of fcos, "),
        (
            ("class_agnostic_nms: auto", "class_agnostic_nms: sometimes"),
            "model.class_agnostic_nms: 'sometimes': ",
        ),
        (
            ("detector: fcos", "detector: ssd300_vgg16"),
            "model: ssd300_vgg16 has a backbone of its own, not 'tf_efficientnet_lite0'",
        ),
    ],
)
def test_a_detectors_mistakes(tmp_path: Path, edit: tuple[str, str], line: str) -> None:
    assert edit[0] in DETECTOR_RECIPE
    assert error_line(write_params(tmp_path, DETECTOR_RECIPE.replace(*edit))).startswith(line)


@pytest.mark.parametrize("value", ["auto", "true", "false"])
def test_nms_across_labels_is_a_choice_of_three(tmp_path: Path, value: str) -> None:
    text = DETECTOR_RECIPE.replace("class_agnostic_nms: auto", f"class_agnostic_nms: {value}")
    given = load_params(write_params(tmp_path, text)).model.class_agnostic_nms
    assert given == {"auto": "auto", "true": True, "false": False}[value]
    default = "\n".join(line for line in DETECTOR_RECIPE.splitlines() if "class_agnostic_nms" not in line)
    assert load_params(write_params(tmp_path, default)).model.class_agnostic_nms == "auto"


@pytest.mark.parametrize(
    "uri", ["", "sqlite:///runs.db", "http://ada:pw@host:5000", "postgresql://host/db", "databricks"]
)
def test_addresses_that_mlflow_records_to(tmp_path: Path, uri: str) -> None:
    path = write_params(tmp_path, RECIPE.replace('uri: ""', f"uri: {uri!r}"))
    assert load_params(path).tracking.uri == uri


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        (
            "mlruns",
            "tracking.uri: 'mlruns': a folder, and MLflow 3 keeps runs in a database; give for example sqlite",
        ),
        ("file:///srv/mlruns", "tracking.uri: 'file:///srv/mlruns': a folder, and MLflow 3 keeps runs in a database"),
        (
            "sqlite://",
            "tracking.uri: 'sqlite://': no file, so that nothing is kept; give for example sqlite:///mlflow.db",
        ),
        ("ada:se@cret@host", "tracking.uri: '…@host': a folder, and MLflow 3 keeps runs in a database"),
    ],
)
def test_addresses_that_would_record_nothing(tmp_path: Path, uri: str, line: str) -> None:
    found = error_line(write_params(tmp_path, RECIPE.replace('uri: ""', f"uri: {uri!r}")))
    assert found.startswith(line)
    assert "cret" not in found
