"""The manifest: references are checked, what is written comes back, and boxes in both notations."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from headstart.base.errors import UserError
from headstart.base.manifest import (
    Annotation,
    Category,
    Image,
    Manifest,
    make_categories,
    read_manifest,
    write_manifest,
    xywh_to_xyxy,
    xyxy_to_xywh,
)


def image(number: int, label: str | None = None) -> Image:
    return Image(id=number, file_name=f"{number}.png", width=9, height=8, sha256="0", source="s", label=label)


def box(number: int, image_id: int, category_id: int) -> Annotation:
    return Annotation(id=number, image_id=image_id, category_id=category_id, bbox=(1, 2, 3, 4), area=12)


MANIFEST = Manifest(
    images=(image(1, "cat"), image(2), image(3, "été")),
    annotations=(box(1, 1, 7), box(2, 2, 3), box(3, 2, 7)),
    categories=(Category(id=7, name="cat"), Category(id=3, name="été")),
)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_manifest(MANIFEST, tmp_path / "a.json")
    assert read_manifest(tmp_path / "a.json") == MANIFEST
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "null" not in text, "absent fields are left out"
    assert sum('"file_name"' in line for line in text.splitlines()) == 3, "one picture a line"


def test_labels_and_their_numbers_are_in_the_order_of_the_ids() -> None:
    assert MANIFEST.labels() == ["été", "cat"]
    assert list(MANIFEST.label_numbers().items()) == [(3, 0), (7, 1)]
    assert make_categories(["b", "a", "b"]) == (Category(id=1, name="a"), Category(id=2, name="b"))


def test_a_subset_has_its_own_boxes_and_all_categories() -> None:
    part = MANIFEST.subset([MANIFEST.images[1]])
    assert [annotation.id for annotation in part.annotations] == [2, 3]
    assert part.categories == MANIFEST.categories


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": (image(1), image(1))}, "two pictures share an id"),
        ({"images": (image(1, "dog"),), "annotations": ()}, "picture 1.png has label 'dog', which is no category"),
        ({"annotations": (box(5, 9, 7),)}, "annotation 5 refers to a picture or category that does not exist"),
        ({"annotations": (box(6, 1, 1),)}, "annotation 6 refers to a picture or category that does not exist"),
    ],
)
def test_references_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate({**dict(MANIFEST), **changes})


def test_a_file_that_is_missing_or_no_manifest_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json: no such file; run the stage that writes it: dvc repro$"):
        read_manifest(path)
    path.write_text('{"images": [')
    with pytest.raises(UserError, match=re.escape(f"{path}: Invalid JSON: EOF while parsing a list")):
        read_manifest(path)
    path.write_text('{"images": [{"id": 1}], "categories": []}')
    with pytest.raises(UserError, match=re.escape(f"{path}: images.0.file_name: Field required; run `dvc repro` to ")):
        read_manifest(path)


def test_boxes_in_both_notations() -> None:
    assert xywh_to_xyxy((1, 2, 3.5, 4)) == (1, 2, 4.5, 6)
    assert xyxy_to_xywh((1, 2, 4.5, 6)) == (1, 2, 3.5, 4)
