"""What a person gets to read who mistypes something in the section `fetch`."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from headstart.base.errors import UserError
from headstart.params.fetch import SOURCE_KINDS, SourceParams, YoloParams
from headstart.params.reader import load_params

RECIPE = Path(__file__).parents[2] / "recipes/solar-cells.yaml"


def loaded(folder: Path, fetch: dict[str, Any]) -> SourceParams:
    data = yaml.safe_load(RECIPE.read_text()) | {"fetch": fetch}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(data))
    return load_params(path).fetch.sources[0]


def test_every_kind_as_the_design_writes_it(tmp_path: Path) -> None:
    sources: list[dict[str, Any]] = [
        {"folder": "data/hike", "split": "test"},
        {"table": "data/shoes.csv", "min_side": 64, "group_by": "camera", "confidence": "sure"},
        {
            "open_images": {
                "classes": ["Alpaca"],
                "images_per_class": 200,
                "negatives": {"from": ["Goat", "Sheep", "Toy"], "label": "not alpaca"},
            }
        },
        {"stanford_dogs": {"breeds": ["French bulldog"]}, "label": "other frenchie"},
        {"coco": {"images": "data/x", "annotations": "data/x.json"}},
        {"voc": {"images": "data/x", "annotations": "data/y"}},
        {"yolo": {"images": "data/x", "labels": "data/y", "names": "data/data.yaml"}},
        {"cvat": {"images": "data/x", "annotations": "data/annotations.xml"}},
        {"label_studio": {"images": "data/x", "annotations": "data/export.json"}},
        {"labelme": {"images": "data/x"}},
        {"via": {"images": "data/x", "annotations": "data/via.json", "attribute": "kind"}},
        {"mosaic": {"table": "data/solar-cells.csv", "boxes": ["defective"], "scenes": 150}},
    ]
    kinds = [loaded(tmp_path, {"sources": [source]}).kinds() for source in sources]
    assert sorted(kind for (kind,) in kinds) == sorted(SOURCE_KINDS)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({"fodler": "data"}, "fetch.sources.0.fodler: unknown key; did you mean 'folder'?"),
        (
            {"folder": "a", "table": "b"},
            "fetch.sources.0: a source names exactly one kind of folder, table",
        ),
        ({"limit": 5}, "fetch.sources.0: a source names exactly one kind of"),
        ({"folder": "a", "split": "exam"}, "fetch.sources.0.split: 'exam': input should be 'train', 'val' or 'test'"),
        ({"mosaic": {"table": "t.csv", "scenes": 9}}, "fetch.sources.0.mosaic.boxes: missing; add it"),
        (
            {"mosaic": {"table": "t.csv", "boxes": ["a"], "scenes": 9, "rows": [5, 2]}},
            "fetch.sources.0.mosaic: rows: [5, 2]: give [least, greatest], the least 1 or more",
        ),
        (
            {"mosaic": {"table": "t.csv", "boxes": ["a"], "scenes": 9, "cell": [4, 9]}},
            "fetch.sources.0.mosaic: cell: [4, 9]: give [least, greatest], the least 8 or more",
        ),
        (
            {"mosaic": {"table": "t.csv", "boxes": ["a"], "scenes": 9, "groups": 2}},
            "fetch.sources.0.mosaic.groups: 2: input should be greater than or equal to 3",
        ),
        (
            {"mosaic": {"table": "t.csv", "boxes": ["a"], "scenes": 9}, "group_by": "x"},
            "fetch.sources.0: group_by: the scenes of a mosaic have groups already; take it out",
        ),
        (
            {"folder": "a", "confidence": "sure"},
            "fetch.sources.0: confidence: names a column of a table, and this source is none; take it out",
        ),
        ({"folder": ""}, "fetch.sources.0.folder: '': string should have at least 1 character"),
        ({"folder": "a", "limit": 0}, "fetch.sources.0.limit: 0: input should be greater than or equal to 1"),
        (
            {"open_images": {"clases": ["Alpaca"]}},
            "fetch.sources.0.open_images.clases: unknown key; did you mean 'classes'?",
        ),
        (
            {"open_images": {"images_per_class": 9}},
            "fetch.sources.0.open_images.classes: missing; add it",
        ),
        (
            {"open_images": {"classes": ["Alpaca"], "image_per_class": 9}},
            "fetch.sources.0.open_images.image_per_class: unknown key; did you mean 'images_per_class'?",
        ),
        (
            {"open_images": {"classes": ["Alpaca"], "negatives": {"form": ["Goat"]}}},
            "fetch.sources.0.open_images.negatives.form: unknown key; did you mean 'from'?",
        ),
        (
            {"open_images": {"classes": ["Alpaca"], "splits": ["val"]}},
            "fetch.sources.0.open_images.splits.0: 'val': input should be 'validation', 'test' or 'train'",
        ),
        (
            {"stanford_dogs": {"base_url": "s3://bucket"}},
            "fetch.sources.0.stanford_dogs.base_url: 's3://bucket': string should match pattern",
        ),
        (
            {"yolo": {"images": "a", "labels": "b"}},
            "fetch.sources.0.yolo: names: missing; give images, labels and names, or the export's folder as one path",
        ),
        (
            {"yolo": {"data": "a", "names": "b"}},
            "fetch.sources.0.yolo: data: is the whole set; take out images, labels and names",
        ),
        ({"yolo": ""}, "fetch.sources.0.yolo.data: '': string should have at least 1 character"),
        (
            {"yolo": {"data": "a", "task": "classify"}},
            "fetch.sources.0.yolo.task: 'classify': input should be 'detect', 'segment', 'pose' or 'obb'",
        ),
        ({"via": {"images": "a"}}, "fetch.sources.0.via.annotations: missing; add it"),
        (
            {"coco": "data/x.json"},
            "fetch.sources.0.coco: 'data/x.json': a section belongs here, with keys of its own: images, annotations",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, source: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        loaded(tmp_path, {"sources": [source]})
    assert str(caught.value).startswith(f"{tmp_path}/params.yaml: ")
    assert "\n" not in str(caught.value)


def test_limits_of_downloads(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fetch\.downloads\.per_host: 0: input should be greater than or equal to 1"):
        loaded(tmp_path, {"sources": [{"folder": "a"}], "downloads": {"per_host": 0}})


def test_a_yolo_export_is_one_path(tmp_path: Path) -> None:
    source = loaded(tmp_path, {"sources": [{"yolo": "data/export"}]})
    assert source.yolo == YoloParams(data="data/export")
    assert source.kinds() == ["yolo"]
