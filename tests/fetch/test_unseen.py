"""What DVC's hash of data/ does not cover, for each kind of source."""

from pathlib import Path
from typing import Any

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources import table as table_source
from headstart.fetch.unseen import Unseen, unseen_by_dvc
from pictures import params, put, table


def unseen(root: Path, *sources: dict[str, Any]) -> list[Unseen]:
    return unseen_by_dvc(params(*sources).fetch, root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "disk/pets/cat/1.png", b"")
    (tmp_path / "repo/data").mkdir(parents=True)
    return tmp_path / "repo"


def test_pictures_in_data_are_seen(root: Path) -> None:
    put(root / "data/cat/1.png", b"")
    (root / "data/cat/2.png").symlink_to(root.parent / "disk/pets/cat/1.png")  # DVC hashes the file behind it
    (root / "data/cat/loop.png").symlink_to("loop.png")
    table(root / "data/t.csv", [("image", "label"), ("cat/1.png", "a"), ("https://host/1.png", "a")])
    assert unseen(root, {"folder": "data"}, {"folder": "data/cat"}, {"table": "data/t.csv"}) == []


def test_links_to_folders(root: Path) -> None:
    disk = root.parent / "disk"
    (root / "data/pets").symlink_to(disk / "pets")
    put(root / "data/own/1.png", b"")
    (root / "data/own/more").symlink_to("../../../disk/pets/cat")
    (disk / "pets/cat/loop").symlink_to(root / "data")
    pets = Unseen("link", "data/pets", disk / "pets")
    more = Unseen("link", "data/own/more", disk / "pets/cat")
    assert unseen(root, {"folder": "data/pets"}) == [pets]
    assert unseen(root, {"folder": "data/pets/cat"}) == [pets]
    assert unseen(root, {"folder": "data/own"}) == [more]
    assert unseen(root, {"folder": "data"}) == [pets], "the other one is in it"
    table(root / "data/t.csv", [("image", "label"), ("pets/cat/1.png", "a"), ("own/1.png", "a")])
    assert unseen(root, {"table": "data/t.csv"}, {"folder": "data/pets"}) == [pets]


def test_data_itself_may_be_a_link(root: Path) -> None:
    (root / "data").rmdir()
    (root / "data").symlink_to(root.parent / "disk")
    assert unseen(root, {"folder": "data/pets"}) == []


def test_paths_outside_data(root: Path) -> None:
    disk = root.parent / "disk"
    put(root / "mine/cat/1.png", b"")
    assert unseen(root, {"folder": "../disk/pets"}) == [Unseen("outside", "../disk/pets", disk / "pets")]
    assert unseen(root, {"folder": str(disk)}) == [Unseen("outside", str(disk), disk)]
    assert unseen(root, {"folder": "data/../mine"}) == [Unseen("outside", "data/../mine", root / "mine")]
    put(root / "data/export/a.json", b"{}")
    coco = {"images": str(disk / "pets"), "annotations": "data/export/a.json"}
    assert unseen(root, {"coco": coco}) == [Unseen("outside", str(disk / "pets"), disk / "pets")]
    assert unseen(root, {"folder": "../gone"}) == [], "fetch names what is missing"


def test_pictures_of_a_table_outside_data(root: Path) -> None:
    picture, pets = root.parent / "disk/pets/cat/1.png", root.parent / "disk/pets/cat"
    images = [str(picture), "../../disk/pets/cat/1.png", picture.as_uri()]
    table(root / "data/t.csv", [("image", "label"), *((image, "a") for image in images)])
    assert unseen(root, {"table": "data/t.csv"}) == [
        Unseen("file-address", images[2], picture),
        Unseen("outside", images[0], picture),
        Unseen("outside", images[1], picture),
    ]
    table(root / "data/t.csv", [("image", "label"), *((f"{pets.as_uri()}/{number}.png", "a") for number in range(30))])
    assert unseen(root, {"table": "data/t.csv"}) == [Unseen("file-address", str(pets), pets)]
    table(root / "t.csv", [("image", "label"), ("1.png", "a")])
    mosaic = {"table": "t.csv", "boxes": ["a"], "scenes": 3}
    put(root / "1.png", b"")
    assert unseen(root, {"mosaic": mosaic}) == [
        Unseen("outside", "t.csv", root / "t.csv"),
        Unseen("outside", "1.png", root / "1.png"),
    ]


def test_files_of_a_package(root: Path) -> None:
    table(root / "data/t.csv", [("image", "label"), ("package:PIL/a.png", "a"), ("package:PIL/b.png", "a")])
    (place,) = unseen(root, {"table": "data/t.csv"})
    assert (place.kind, place.target) == ("package", table_source.find_package_folder("PIL"))
    assert place.path.lower().startswith("package:pil (pillow ")


def test_mirrors_on_this_machine(root: Path) -> None:
    folder = (root.parent / "disk").as_uri()
    oi = {"classes": ["Cat"], "metadata_url": folder, "images_url": f"{folder}/pets"}
    assert unseen(root, {"open_images": oi}, {"open_images": {"classes": ["Cat"]}}) == [
        Unseen("file-address", folder, root.parent / "disk"),
        Unseen("file-address", f"{folder}/pets", None),
    ]
    assert unseen(root, {"stanford_dogs": {"base_url": folder}}) == [
        Unseen("file-address", folder, root.parent / "disk")
    ]


def test_data_yaml_may_lead_elsewhere(root: Path) -> None:
    disk = root.parent / "disk"
    for name in ("images/1.png", "labels/1.txt"):
        put(disk / "set" / name, b"")
    put(root / "data/data.yaml", f"path: {disk}/set\ntrain: images\nval: images\nnames: [dog]\n".encode())
    places = unseen(root, {"yolo": "data/data.yaml"})
    assert {(place.kind, place.target) for place in places} == {
        ("outside", disk / "set/images/1.png"),
        ("outside", disk / "set/labels/1.txt"),
    }


def test_a_table_that_cannot_be_read(root: Path) -> None:
    put(root / "data/t.csv", b"image,label\n1.png,a,b\n")
    with pytest.raises(UserError, match=r"^params\.yaml: fetch\.sources\.0: table: data/t\.csv: line 2: "):
        unseen(root, {"table": "data/t.csv"})
