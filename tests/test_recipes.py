"""Every recipe plans, and runs from end to end: on generated pictures, some from the server of this machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from clone import ALL, ROOT, Project, merged
from headstart.base.manifest import SPLITS, Manifest
from headstart.params.fetch import FetchParams
from headstart.params.reader import load_params
from headstart.params.root import Params, SplitParams
from headstart.params.training import LOOP_OPTIONS
from mirror import Mirror
from pictures import encoded, put, table
from recipe_data import jpeg, put_alpaca, put_folder, put_lucy, put_shoes
from tiny import texture
from trees import OpenImages

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FOR_DETECTORS = {"model.tiles", "model.pyramid", "model.class_agnostic_nms", "augment.mosaic"}
FOR_CLASSIFIERS = {f"fine_tune.{key}" for key in ("cache_frozen", "mixup", "cutmix", "sampling", "keep")} | {
    "train_head.sampling",
    "evaluate.confidence",
    "model.head.features",
    "evaluate.folds",
    "evaluate.folds_fine_tune",
}
# A head that is solved has no epochs; its kind is linear where there is neither a kernel nor hidden layers.
OF_EPOCHS = {f"train_head.{key}" for key in LOOP_OPTIONS}
SMALL: dict[str, object] = {
    "model": {"backbone": tiny.TRUNK, "weights": "none", "image_size": 32},
    "train_head": {"epochs": 2},
    "fine_tune": {"epochs": 1, "freeze_depth": 3},
    "evaluate": {"bootstrap": 100, "gallery": 2},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("clone")
    (folder / "data").mkdir()
    return Project(folder, {})


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_dvc_plans_every_stage(clone: Project, recipe: Path) -> None:
    shutil.copy(recipe, clone.folder / "params.yaml")
    # --force: without it DVC looks, even on a dry run, for folders that earlier stages have yet to make.
    said = clone.run("dvc", "repro", "--dry", "--force")
    assert [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")] == ALL


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_has_every_key(recipe: Path) -> None:
    """So that `cp` of one shows all there is to edit: what is left to defaults cannot be seen."""
    given = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    whole = load_params(recipe).model_dump(mode="json", by_alias=True)

    def keys(values: dict[str, Any]) -> Iterator[str]:
        for key, value in values.items():
            yield key
            if isinstance(value, dict) and key not in ("fetch", "downloads"):
                yield from (f"{key}.{inner}" for inner in keys(value))

    of_steps = {"train_head.min_steps", "train_head.warmup_steps", "fine_tune.warmup_steps"}
    others = {"model.head.kind"} | of_steps | (FOR_CLASSIFIERS if whole["task"] == "detect" else FOR_DETECTORS)
    if whole["task"] == "classify" and whole["model"]["head"]["kind"] != "mlp":
        assert not OF_EPOCHS & set(keys(given))
        others |= OF_EPOCHS
    assert set(keys(given)) | others == set(keys(whole)) | others
    assert set(given["fetch"]) == set(whole["fetch"])


def small(name: str, **mirrored: dict[str, object]) -> Params:
    """A recipe with a network that tests can pay for; `open_images={"images_url": …}` sets addresses of that kind."""
    values = yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    for source in values["fetch"]["sources"]:
        for kind in source.keys() & mirrored.keys():
            source[kind] |= mirrored[kind]
    return Params.model_validate(merged(values, SMALL))


def ran(root: Path, params: Params) -> tuple[dict[str, Any], str]:
    """All eight stages; metrics.json of the exam and the report."""
    tiny.run(root, params)
    parity = tiny.read_json(root / "stages/export/parity.json")
    assert parity["same_label"] == parity["pictures"] > 0
    page = (root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    return tiny.read_json(root / "stages/evaluate/metrics.json"), page


def sources_of(root: Path, split: str) -> set[str]:
    return {image.source for image in tiny.manifest(root, "split", split).images}


def test_alpaca(mirror: Mirror, tmp_path: Path) -> None:
    metrics, page = ran(tmp_path, small("alpaca", **put_alpaca(mirror, tmp_path)))
    assert metrics["test"]["pictures"] == 6
    assert sources_of(tmp_path, "test") == {"folder:data/hike"}
    assert sources_of(tmp_path, "train") == {f"open_images:{split}" for split in ("validation", "test", "train")}
    assert "404" in (tmp_path / "stages/fetch/failed.csv").read_text()
    assert len((tmp_path / "stages/fetch/attribution.csv").read_text().splitlines()) == 1 + 24
    assert "sources" not in metrics, "what it learned from is one collection"
    assert "open_images:validation" in page


def test_lucy(mirror: Mirror, tmp_path: Path) -> None:
    metrics, page = ran(tmp_path, small("lucy", **put_lucy(mirror, tmp_path)))
    images = [i for split in ("train", "val", "test") for i in tiny.manifest(tmp_path, "split", split).images]
    assert {(image.label, image.source) for image in images} == {
        ("lucy", "folder:data/lucy"),
        ("other frenchie", "stanford_dogs"),
    }
    for walk in (f"day{number}" for number in range(6)):
        splits = {
            s for s in ("train", "val", "test") if walk in {i.group for i in tiny.manifest(tmp_path, "split", s).images}
        }
        assert len(splits) == 1
    assert set(metrics["sources"]) == {"lucy", "other frenchie"}
    assert "no metric here can separate the two" in page


def test_shoes(mirror: Mirror, tmp_path: Path) -> None:
    metrics, _ = ran(tmp_path, small("shoes", **put_shoes(mirror, tmp_path)))
    fetched = tiny.read_json(tmp_path / "stages/fetch/metrics.json")
    assert (fetched["pictures"], fetched["failed"]) == (20 + 10, 5 + 2)
    assert metrics["test"]["pictures"] == 10
    assert sources_of(tmp_path, "test") == {"folder:data/camera"}
    train = len(tiny.manifest(tmp_path, "split", "train").images)
    assert len(tiny.manifest(tmp_path, "augment", "train").images) == 4 * train
    assert mirror.max_concurrent <= 8


def test_cats_dogs(tmp_path: Path) -> None:
    put_folder(tmp_path / "data/cats-dogs", ["cat", "dog"], 10)
    metrics, page = ran(tmp_path, small("cats-dogs"))
    assert set(metrics["test"]["per_class"]) == {"cat", "dog"}
    assert "sources" not in metrics
    assert "Label or source?" not in page


def divided(root: Path, name: str, **mirrored: dict[str, object]) -> dict[str, Manifest]:
    """The recipe's fetch and split; what it says of the network is not looked at."""
    values = yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    for source in values["fetch"]["sources"]:
        for kind in source.keys() & mirrored.keys():
            source[kind] |= mirrored[kind]
    sections: dict[str, Any] = {"task": values["task"], "seed": values["seed"]}
    sections["fetch"] = FetchParams.model_validate(values["fetch"])
    sections["split"] = SplitParams.model_validate(values["split"])
    tiny.run(root, Params.model_construct(**sections), "fetch", "split")
    return {split: tiny.manifest(root, "split", split) for split in SPLITS}


def test_solar_modules(tmp_path: Path) -> None:
    rows = [("image", "label", "license", "author")]
    for number in range(480):
        label = number % 3 == 0
        put(tmp_path / f"data/{number}.png", encoded(texture(number, int(label), (12, 12)).convert("L")))
        rows.append((f"{number}.png", "defective" if label else "functional", "CC0", "Ann"))
    table(tmp_path / "data/solar-cells.csv", rows)
    found = divided(tmp_path, "solar-modules", mosaic={"scenes": 60, "groups": 20})
    assert sum(len(part.images) for part in found.values()) == 60
    groups = [{image.group for image in part.images} for part in found.values()]
    assert len(set().union(*groups)) == sum(map(len, groups)) == 20
    assert sum(len(part.annotations) for part in found.values()) > 60
    for part in found.values():
        assert part.labels() == ["defective"]
        assert part.annotations
        assert {image.license for image in part.images} == {"CC0"}


def test_detector(tmp_path: Path) -> None:
    corners = "<xmin>5</xmin><ymin>1</ymin><xmax>49</xmax><ymax>39</ymax>"
    size = "<size><width>80</width><height>72</height><depth>3</depth></size>"
    item = f"<annotation>{size}<object><name>raccoon</name><bndbox>{corners}</bndbox></object></annotation>"
    for number in range(20):
        put(tmp_path / f"data/pictures/images/raccoon-{number}.jpg", jpeg(number, 0))
        put(tmp_path / f"data/pictures/annotations/raccoon-{number}.xml", item.encode())
    found = divided(tmp_path, "detector")
    assert {name: len(part.images) for name, part in found.items()} == {"train": 14, "val": 2, "test": 4}
    assert found["test"].annotations[0].bbox == (4, 0, 45, 39)


def test_open_images_detector(mirror: Mirror, tmp_path: Path) -> None:
    tree = OpenImages(mirror.folder)
    for number in range(18):
        boxes = [(("Alpaca", "Goat", "Sheep")[number % 3], 0.1, 0.2, 0.6, 0.9)]
        tree.add(("validation", "test", "train")[number % 2], boxes=boxes, flags="00100" if number > 15 else "00000")
    tree.write()
    addresses: dict[str, object] = {"metadata_url": f"{mirror.url}/metadata", "images_url": f"{mirror.url}/images"}
    found = divided(tmp_path, "open-images-detector", open_images=addresses)
    assert all(part.labels() == ["Alpaca", "Goat", "Sheep"] for part in found.values())
    assert sum(len(part.annotations) for part in found.values()) == 18
    assert sum(a.iscrowd for part in found.values() for a in part.annotations) == 2
    assert len((tmp_path / "stages/fetch/attribution.csv").read_text().splitlines()) == 1 + 18


@pytest.mark.parametrize(
    ("name", "frozen", "first_that_trains"), [("shoes", 10, "features.24"), ("lucy", 14, "layer4.0")]
)
def test_the_depth_is_where_the_recipe_says(name: str, frozen: int, first_that_trains: str) -> None:
    """VGG-16's tenth convolution is features.21; ResNet-50's last stage is layer4. Built without memory."""
    import torch

    from headstart.models.backbone import create_backbone
    from headstart.models.freeze import list_blocks, resolve_freeze_depth

    params = load_params(ROOT / f"recipes/{name}.yaml")
    with torch.device("meta"):
        found = list_blocks(create_backbone(params.model.backbone))
    assert resolve_freeze_depth(found, params.fine_tune.freeze_depth) == frozen
    assert found[frozen].name == first_that_trains
