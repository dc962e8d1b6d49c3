import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.yolo_yaml import YoloConfig, read_config


def config(folder: Path, text: str, name: str = "data.yaml") -> YoloConfig:
    (folder / name).write_text(text, encoding="utf-8")
    return read_config(folder / name, f"yolo.names: {name}")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            "names: [no, yes, on, 1.0, 2024-01-01, null, '~', 0x1F]",
            ["no", "yes", "on", "1.0", "2024-01-01", "null", "~", "0x1F"],
        ),
        ("names: person", ["person"]),
        ("nc: 1\nnames: traffic light", ["traffic light"]),
        ("nc: '2'\nnames:\n  0: cat\n  '1': dog", ["cat", "dog"]),
        ("names:\n- cat \n- ' dog'\n", ["cat", "dog"]),
        ("names: [ha\u0308her]", ["h\u00e4her"]),
    ],
)
def test_names_are_read_as_written(tmp_path: Path, text: str, names: list[str]) -> None:
    assert config(tmp_path, text).names == dict(enumerate(names))


def test_an_empty_line_of_a_text_file_counts(tmp_path: Path) -> None:
    assert config(tmp_path, "\ufeffcat\r\n\r\ndog\r\n\r\n", "classes.txt").names == {0: "cat", 2: "dog"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nc: 2\nnames: person", "names: 'person' is one text, not a list; write `names: [cat, dog]`"),
        ("names: cat, dog", "names: 'cat, dog' is one text"),
        ("names: cat dog", "names: 'cat dog' is one text"),
        ("names: data/obj.names", "names: 'data/obj.names' is one text"),
        ("nc: 3\nnames: [cat, dog]", "nc: 3: but 2 names; correct one of the two"),
        ("nc: many\nnames: [cat]", "nc: 'many' is not a number of classes"),
        ("names: [cat, dog, cat]", "names: 'cat' stands for class 0 and class 2: these two would be one"),
        ("names: {0: cat, 00: dog}", "names: class 0 has two names"),
        ("names: {0: cat, 0: dog}", "not valid YAML at line 1: '0' stands there twice"),
        ("names: {first: cat}", "names: 'first' is not a class number"),
        ("names: {-1: cat}", "names: '-1' is not a class number"),
        ("names: [[cat], dog]", "names: class 0 is a list, not a text"),
        ("names: {0: {a: b}}", "names: class 0 is a dict, not a text"),
        ("names: {[0]: cat}", "not valid YAML at line 1: found unhashable key"),
        ("names: &a [*a]", "no list `names:` in it"),
        ("names: ['', '']", "no name in it"),
        (f"names: {'[' * 2000}", "no list `names:` in it"),
        ("names: [cat]\nkpt_shape: 17", "kpt_shape: write [number of keypoints, 2 or 3]"),
        ("names: [cat]\nkpt_shape: [17, 4]", "kpt_shape: write"),
        ("names: [cat]\ntrain: {a: b}", "train: a folder is expected"),
        ("names: [cat]\nval: a\nvalid: b", "valid: a second key for the split 'val'"),
        ("names: [cat]\npath: [a]", "path: one text is expected, not a list"),
    ],
)
def test_what_contradicts_itself_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)) as caught:
        config(tmp_path, text)
    assert str(caught.value).startswith("yolo.names: data.yaml: ")
    assert "\n" not in str(caught.value)


def test_all_other_keys(tmp_path: Path) -> None:
    text = "path: ..\\sets\ntrain: [a, b.txt]\nvalid: c\ntest:\ntask: pose\nkpt_shape: [17, 3]\nnames: [cat]\n"
    read = config(tmp_path, text)
    assert (read.path, read.task, read.keypoints) == ("../sets", "pose", (17, 3))
    assert read.splits == {"train": ("a", "b.txt"), "val": ("c",)}
    assert config(tmp_path, "names: [cat]\ntask: classify\n").task is None
