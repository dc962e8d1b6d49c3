"""params.yaml: what is right loads, and each mistake is one line that names file, key, value and fix."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from headstart.errors import UserError
from headstart.params import Params
from headstart.params_file import load

ROOT = Path(__file__).parent.parent
RECIPE = (ROOT / "recipes/solar-cells.yaml").read_text(encoding="utf-8")


def written(folder: Path, text: str = RECIPE) -> Path:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(folder: Path, key: str, value: Any) -> Path:
    """The recipe with one key set to a value, or taken out (`...`)."""
    data = yaml.safe_load(RECIPE)
    *sections, last = key.split(".")
    place = data
    for section in sections:
        place = place[section]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return written(folder, yaml.safe_dump(data, sort_keys=False))


def complaint(path: Path) -> str:
    """The one line that loading ends with."""
    with pytest.raises(UserError) as caught:
        load(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path) -> None:
    load(path)


def test_the_default_params_are_a_recipe() -> None:
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == RECIPE


def test_values_and_types() -> None:
    params = load(ROOT / "params.yaml")
    assert params.train_head.lr == 0.001  # written 1e-3, which plain YAML takes for text
    assert params.model.head.hidden == ()
    assert params.fetch.sources[0].table == "data/solar-cells.csv"


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E4", 2e4), ("1.5e-2", 0.015), ("3e+1", 30.0), ("1", 1)])
def test_numbers_are_numbers_as_in_dvc(tmp_path: Path, text: str, value: float) -> None:
    assert load(written(tmp_path, RECIPE.replace("lr: 1e-3", f"lr: {text}"))).train_head.lr == value


def test_text_that_looks_like_a_number_stays_text_between_quotes(tmp_path: Path) -> None:
    assert load(written(tmp_path, RECIPE.replace("experiment: solar-cells", "experiment: '1e3'"))).tracking.experiment


def test_params_do_not_change_after_loading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(ROOT / "params.yaml").seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train_head.epoch", 9, "train_head.epoch: unknown key; did you mean 'epochs'?"),
        ("train_head.learning_rate", 0.1, "train_head.learning_rate: unknown key; known here: epochs, lr, batch_size"),
        ("fine_tune.freeze_deph", 3, "fine_tune.freeze_deph: unknown key; did you mean 'freeze_depth'?"),
        ("model.head.droput", 0.3, "model.head.droput: unknown key; did you mean 'dropout'?"),
        ("finetune", {}, "finetune: unknown key; did you mean 'fine_tune'?"),
        ("export.zzz", 1, "export.zzz: unknown key; known here: tolerance"),
        ("train_head.lr", 0, "train_head.lr: 0: input should be greater than 0"),
        ("train_head.lr", "fast", "train_head.lr: 'fast': input should be a valid number, unable to parse"),
        ("train_head.epochs", 0, "train_head.epochs: 0: input should be greater than or equal to 1"),
        ("train_head.epochs", 2.5, "train_head.epochs: 2.5: input should be a valid integer"),
        ("train_head.ema", 1, "train_head.ema: 1: input should be less than 1"),
        ("fine_tune.freeze_depth", -2, "fine_tune.freeze_depth: -2: input should be greater than or equal to -1"),
        ("fine_tune.batch_norm", "frozen", "fine_tune.batch_norm: 'frozen': input should be 'fixed' or 'update'"),
        ("model.image_size", "large", "model.image_size: 'large': input should be a valid integer"),
        ("model.image_size", 8, "model.image_size: 8: input should be greater than or equal to 16"),
        ("model.head.hidden", [64, 0], "model.head.hidden.1: 0: input should be greater than or equal to 1"),
        ("task", "segment", "task: 'segment': input should be 'classify'"),
        ("seed", -1, "seed: -1: input should be greater than or equal to 0"),
        ("split.val", 0.5, "split: train + val + test must be 1, they are 1.35"),
        ("augment.horizontal_flip", 1.5, "augment.horizontal_flip: 1.5: input should be less than or equal to 1"),
        ("train_head.epochs", "many", "train_head.epochs: 'many': input should be a valid integer"),
        ("train_head.accumulate", 0, "train_head.accumulate: 0: input should be greater than or equal to 1"),
        (
            "fine_tune.mixup",
            0.2,
            "fine_tune: mixup and cutmix need pictures, and cache_frozen keeps none",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 1, "depth": 13}],
            "fine_tune: unfreeze: the first epoch must be 0",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 0, "depth": 13}, {"epoch": 2, "depth": 14}],
            "fine_tune: unfreeze: each depth must be less than the one before",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 0, "depth": -1}, {"epoch": 2, "depth": 6}],
            "fine_tune: unfreeze: the last depth must be freeze_depth: give 13 there, or freeze_depth: 6",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 0, "depth": -1}, {"epoch": 6, "depth": 13}],
            "fine_tune: unfreeze: epoch 6 never comes: there are 6 epochs",
        ),
        ("evaluate", ..., "evaluate: missing; add it (recipes/solar-cells.yaml has every key)"),
        ("train_head.lr", ..., "train_head.lr: missing; add it (recipes/solar-cells.yaml has every key)"),
        ("train", None, "train: None: input should be a valid dictionary or instance of TrainParams"),
        ("fetch.sources", [], "fetch.sources: []: tuple should have at least 1 item after validation, not 0"),
        (
            "fetch.sources",
            [{"tabel": "a.csv"}],
            "fetch.sources.0.tabel: unknown key; did you mean 'table'?",
        ),
        (
            "fetch.sources",
            [{"table": "a.csv", "folder": "b"}],
            "fetch.sources.0: a source names exactly one kind of folder, table",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, key: str, value: object, said: str) -> None:
    assert complaint(changed(tmp_path, key, value)).startswith(said)


def test_both_ways_to_balance_are_one_too_many(tmp_path: Path) -> None:
    text = RECIPE.replace("class_weights: none", "class_weights: balanced", 1)
    text = text.replace("sampling: shuffled", "sampling: balanced", 1)
    assert complaint(written(tmp_path, text)).startswith("train_head: sampling and class_weights both")


def test_auto_epochs_load_and_come_back_from_plain_values(tmp_path: Path) -> None:
    """The process that records the run gets them as JSON."""
    params = load(changed(tmp_path, "train_head.epochs", "auto"))
    assert params.train_head.epochs == "auto"
    assert Params.model_validate(params.model_dump(mode="json", by_alias=True)) == params


def test_two_mistakes_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, RECIPE.replace("task: classify", "task: count").replace("seed: 0", "seed: none"))
    assert complaint(path).endswith("(and 1 more)")


def test_a_misspelt_key_is_named_before_the_one_it_leaves_missing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8").replace("  epochs: 30", "  epoch: 30", 1))
    assert "train_head.epoch: unknown key; did you mean 'epochs'?" in complaint(path)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    assert len(complaint(changed(tmp_path, "model.image_size", "x" * 500))) < 250


def test_no_file(tmp_path: Path) -> None:
    assert "no such file; copy one: cp recipes/solar-cells.yaml" in complaint(tmp_path / "params.yaml")


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in complaint(tmp_path)


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"task: \xff\xfe")
    assert "cannot be read" in complaint(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {backbone: [", "not valid YAML at line 1"),
        ("task: classify\n  seed: 0\n", "not valid YAML at line 2, column 7"),
        ("task: classify\n\tseed: 0\n", "not valid YAML at line 2, column 1"),
        ("", "expected sections such as `model:` and `fetch:`, found NoneType"),
        ("- task\n", "expected sections such as `model:` and `fetch:`, found list"),
    ],
)
def test_no_yaml(tmp_path: Path, text: str, said: str) -> None:
    assert complaint(written(tmp_path, text)).startswith(said)


def test_a_key_given_twice(tmp_path: Path) -> None:
    text = RECIPE.replace("  lr: 1e-3\n", "  lr: 1e-3\n  lr: 1e-4\n", 1)
    line = 1 + text.splitlines().index("  lr: 1e-4")
    assert complaint(written(tmp_path, text)) == f"not valid YAML at line {line}, column 3: key 'lr' stands there twice"


def test_python_in_yaml_is_not_run(tmp_path: Path) -> None:
    text = RECIPE.replace("seed: 0", "seed: !!python/object/apply:os.getpid []")
    assert "not valid YAML" in complaint(written(tmp_path, text))


def test_every_key_is_in_the_default_recipe_but_for_those_of_some_kinds_of_source() -> None:
    shown = yaml.safe_load(RECIPE)
    for name, field in Params.model_fields.items():
        assert name in shown, f"{name} cannot be found by who reads params.yaml"
        section = field.annotation
        for key, inner in getattr(section, "model_fields", {}).items():
            of_a_detector = f"{name}.{key}" in ("model.pyramid", "augment.mosaic")
            assert (inner.alias or key) in shown[name] or name == "fetch" or of_a_detector, f"{name}.{key}"


RACCOON = (ROOT / "recipes/raccoon.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            ("champion_metric: AP50", "champion_metric: accuracy"),
            "export.champion_metric: 'accuracy' is none of task: detect; give one of AP50, ",
        ),
        (("detector: fcos", "detector: fcoss"), "model.detector: 'fcoss': no such detector; did you mean fcos"),
        (("detector: fcos", "detector: zzz"), "model.detector: 'zzz': no such detector; known are fcos, "),
        (("detector: fcos", "detector: ''"), "model.detector is missing; give one of fcos, "),
        (
            ("detector: fcos", "detector: ssd300_vgg16"),
            "model: ssd300_vgg16 has a backbone of its own, not 'tf_efficientnet_lite0'",
        ),
        (
            ("task: detect", "task: classify"),
            "model.detector and augment.mosaic are for task: ",
        ),
        (
            ("label_smoothing: 0 ", "label_smoothing: 0.1 "),
            "train_head.label_smoothing is for task: classify; give 0",
        ),
        (
            ("accumulate: 1", "accumulate: 1\n  sampling: balanced"),
            "train_head.sampling is for task: classify; give shuffled",
        ),
        (
            ("layer_decay: 0.9", "layer_decay: 0.9\n  mixup: 1"),
            "fine_tune.mixup is for task: classify; give 0",
        ),
    ],
)
def test_a_detectors_mistakes(tmp_path: Path, edit: tuple[str, str], said: str) -> None:
    assert edit[0] in RACCOON
    assert complaint(written(tmp_path, RACCOON.replace(*edit))).startswith(said)
