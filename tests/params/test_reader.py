"""Reading params.yaml: valid YAML loads as DVC reads it, and each mistake is one line: file, key, value, fix."""

from pathlib import Path

import pytest

from edited_recipe import RECIPE, ROOT, edit_params, error_line, write_params
from headstart.params.reader import load_params


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("2E4", 2e4), ("1.5e-2", 0.015), ("3e+1", 30.0), ("1", 1)])
def test_numbers_are_numbers_as_in_dvc(tmp_path: Path, text: str, value: float) -> None:
    assert load_params(write_params(tmp_path, RECIPE.replace("lr: 8e-4", f"lr: {text}"))).fine_tune.lr == value


def test_text_that_looks_like_a_number_stays_text_between_quotes(tmp_path: Path) -> None:
    path = write_params(tmp_path, RECIPE.replace("experiment: solar-cells", "experiment: '1e3'"))
    assert load_params(path).tracking.experiment == "1e3"


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("train_head.epoch", 9, "train_head.epoch: unknown key; did you mean 'epochs'?"),
        ("train_head.learning_rate", 0.1, "train_head.learning_rate: unknown key; known here: epochs, lr, batch_size"),
        ("fine_tune.freeze_deph", 3, "fine_tune.freeze_deph: unknown key; did you mean 'freeze_depth'?"),
        ("model.head.droput", 0.3, "model.head.droput: unknown key; did you mean 'dropout'?"),
        ("finetune", {}, "finetune: unknown key; did you mean 'fine_tune'?"),
        ("export.zzz", 1, "export.zzz: unknown key; known here: tolerance"),
        ("train_head.lr", 0, "train_head.lr: 0: input should be greater than 0"),
        ("train_head.lr", "fast", "train_head.lr: 'fast': input should be a valid number"),
        ("train_head.epochs", 0, "train_head.epochs: 0: input should be greater than or equal to 1"),
        ("train_head.epochs", 2.5, "train_head.epochs: 2.5: input should be a valid integer"),
        ("train_head.ema", 1, "train_head.ema: 1: input should be less than 1"),
        ("fine_tune.freeze_depth", -2, "fine_tune.freeze_depth: -2: input should be greater than or equal to -1"),
        ("fine_tune.batch_norm", "frozen", "fine_tune.batch_norm: 'frozen': input should be 'fixed' or 'update'"),
        ("model.image_size", "large", "model.image_size: 'large': give one side, such as 320, or height and width"),
        ("model.image_size", 8, "model.image_size: 8: input should be greater than or equal to 16"),
        ("model.head.hidden", [64, 0], "model.head.hidden.1: 0: input should be greater than or equal to 1"),
        ("task", "segment", "task: 'segment': input should be 'classify'"),
        ("seed", -1, "seed: -1: input should be greater than or equal to 0"),
        ("split.val", 0.5, "split: train + val + test must be 1, they are 1.35"),
        ("augment.horizontal_flip", 1.5, "augment.horizontal_flip: 1.5: input should be less than or equal to 1"),
        ("train_head.epochs", "many", "train_head.epochs: 'many': input should be a valid integer"),
        ("train_head.accumulate", 0, "train_head.accumulate: 0: input should be greater than or equal to 1"),
        ("evaluate", ..., "evaluate: missing; add it (recipes/solar-cells.yaml has every key)"),
        ("fine_tune.lr", ..., "fine_tune.lr: missing; add it (recipes/solar-cells.yaml has every key)"),
        ("train", None, "train: None: a section belongs here, with keys of its own: precision, cache_gb"),
        ("fetch.sources", [], "fetch.sources: []: an empty list; give at least one"),
        ("model.head.hidden", 3, "model.head.hidden: 3: a list belongs here, such as [1, 2]"),
        ("tracking.experiment", 12, "tracking.experiment: 12: text belongs here; put it in quotes"),
        ("tracking.uri", None, "tracking.uri: None: text belongs here; '' for none"),
        ("tracking.experiment", "", "tracking.experiment: '': "),
        ("", 1, "'': unknown key; known here: task, seed"),
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
def test_a_mistake_is_one_line(tmp_path: Path, key: str, value: object, line: str) -> None:
    assert error_line(edit_params(tmp_path, {key: value})).startswith(line)


def test_two_mistakes_are_counted(tmp_path: Path) -> None:
    path = write_params(tmp_path, RECIPE.replace("task: classify", "task: count").replace("seed: 0", "seed: none"))
    assert error_line(path).endswith("(and 1 more)")


def test_a_misspelt_key_is_named_before_the_one_it_leaves_missing(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8").replace("  epochs: 6", "  epoch: 6", 1))
    assert "fine_tune.epoch: unknown key; did you mean 'epochs'?" in error_line(path)


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    assert len(error_line(edit_params(tmp_path, {"model.image_size": "x" * 500}))) < 250


def test_no_file(tmp_path: Path) -> None:
    assert "no such file; copy one: cp recipes/solar-cells.yaml" in error_line(tmp_path / "params.yaml")


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert error_line(tmp_path) == "a folder lies where a file is needed; move it away, and the same command goes on"
    (tmp_path / "params.yaml").symlink_to("params.yaml")
    assert error_line(tmp_path / "params.yaml") == "cannot be read (Too many levels of symbolic links)"


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"task: classify\nseed: 0 # f\xfcr\n")
    assert error_line(tmp_path / "params.yaml") == "cannot be read: not UTF-8 at line 2; save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model: {backbone: [", "not valid YAML at line 1"),
        ("task: classify\n  seed: 0\n", "not valid YAML at line 2, column 7"),
        ("task: classify\n\tseed: 0\n", "not valid YAML at line 2, column 1"),
        ("", "expected sections such as `model:` and `fetch:`, found nothing; cp recipes/solar-cells.yaml"),
        ("- task\n", "expected sections such as `model:` and `fetch:`, found list"),
    ],
)
def test_no_yaml(tmp_path: Path, text: str, line: str) -> None:
    assert error_line(write_params(tmp_path, text)).startswith(line)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("seed: 0", "? [1, 2]\n: 3\nseed: 0", "not valid YAML at line 6, column 3: a key must be text, found a list"),
        (
            "seed: 0",
            "5: 1\nseed: 0",
            "not valid YAML at line 6, column 1: a key must be text, found '5'; put it in quotes",
        ),
        ("solar-cells", "2024-02-30", "2024-02-30: day is out of range for month; if it is text, quote it"),
        (
            "seed: 0",
            "seed: 2024-13-45",
            "line 6, column 7: 2024-13-45: month must be in 1..12; if it is text, quote it",
        ),
        ("seed: 0", "seed: " + "9" * 5000, "999...: 5,000 characters; if it is text, quote it"),
        (
            "seed: 0",
            "seed: " + "[" * 5000 + "]" * 5000,
            "lists or mappings within one another, too deep; take them out",
        ),
        ("seed: 0", "seed: 0\x07", "not valid YAML at line 6: a control character; take it out"),
        ("seed: 0", "seed: 0x" + "f" * 5000, "fff...: 5,002 characters; if it is text, quote it"),
        ("seed: 0", "seed: !!bool maybe", "line 6, column 7: maybe: no bool; if it is text, quote it"),
        ("seed: 0", "seed: !!timestamp soon", "line 6, column 7: soon: no timestamp; if it is text, quote it"),
        ("seed: 0", "seed: 017", "line 6, column 7: 017: would be read as 15; write that, or quote it"),
        ("seed: 0", "seed: 12:30", "line 6, column 7: 12:30: would be read as 750; write that, or quote it"),
        ("solar-cells", "2024-02-20", "tracking.experiment: 2024-02-20: text belongs here; put it in quotes"),
        ("seed: 0", "seed: yes", "seed: True: a number belongs here"),
        ("  lr: 8e-4", "  lr: .inf", "fine_tune.lr: inf: input should be a finite number"),
        ("train_head:", "train_heads:", "train_heads: unknown key; did you mean 'train_head'?"),
    ],
)
def test_values_and_keys_that_yaml_allows_and_nobody_means(tmp_path: Path, old: str, new: str, line: str) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    end = text.index(old) + len(old)
    text = text[:end].replace(old, new) + text[end:]
    if old == "solar-cells":
        text = RECIPE.replace("experiment: solar-cells", f"experiment: {new}")
    found = error_line(write_params(tmp_path, text))
    assert line in found
    assert "more)" not in found
    assert "\n" not in found


def test_a_duplicate_key(tmp_path: Path) -> None:
    text = RECIPE.replace("  lr: 8e-4\n", "  lr: 8e-4\n  lr: 1e-4\n", 1)
    number = 1 + text.splitlines().index("  lr: 1e-4")
    line = f"not valid YAML at line {number}, column 3: duplicate key 'lr'"
    assert error_line(write_params(tmp_path, text)) == line


def test_python_in_yaml_is_not_run(tmp_path: Path) -> None:
    text = RECIPE.replace("seed: 0", "seed: !!python/object/apply:os.getpid []")
    assert "not valid YAML" in error_line(write_params(tmp_path, text))


def test_a_list_of_aliases_is_not_unfolded(tmp_path: Path) -> None:
    doubled = [f"&n{n} [{', '.join([f'*n{n - 1}'] * 9)}]" for n in range(1, 12)]  # 9 to the 11th elements
    text = RECIPE.replace("seed: 0", f"seed: [&n0 [x], {', '.join(doubled)}]")
    line = error_line(write_params(tmp_path, text))
    assert line.startswith("seed: [['x'], [")
    assert line.endswith("...: input should be a valid integer")
    assert len(line) < 120
