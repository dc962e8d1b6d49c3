"""Small generated data for the recipes that download pictures: what their servers have, and folders of one's own."""

from pathlib import Path

from mirror import Mirror
from pictures import encoded, put, table
from tiny import texture
from trees import OpenImages, stanford_dogs

SHOES = ["boots", "clogs", "pumps", "sandals", "trainers"]
Addresses = dict[str, dict[str, object]]  # kind of source -> keys with the addresses of the mirror


def jpeg(seed: int, label: int, size: tuple[int, int] = (80, 72)) -> bytes:
    return encoded(texture(seed, label % 2, size), "JPEG")


def put_folder(folder: Path, labels: list[str], count: int) -> None:
    for label, name in enumerate(labels):
        for number in range(count):
            seed = 7000 + 100 * label + number
            put(folder / name / f"day{number // 2}_{number % 2}.jpg", jpeg(seed, label))


def put_alpaca(mirror: Mirror, root: Path) -> Addresses:
    """12 pictures with an alpaca and 12 without, one that is gone; six photos of one's own for the test."""
    tree = OpenImages(mirror.folder)
    for number in range(12):
        split = ("validation", "test", "train")[number % 3]
        tree.add(split, present=["Alpaca"], data=jpeg(number, 0))
        tree.add(split, present=[("Goat", "Sheep", "Toy")[number % 3]], absent=["Alpaca"], data=jpeg(100 + number, 1))
    tree.add("train", present=["Alpaca"], data=b"")  # listed, and gone
    tree.write()
    put_folder(root / "data/hike", ["Alpaca", "not alpaca"], 3)
    return {"open_images": {"metadata_url": f"{mirror.url}/metadata", "images_url": f"{mirror.url}/images"}}


def put_lucy(mirror: Mirror, root: Path) -> Addresses:
    """12 photos of six walks with the dog, and the four French bulldogs of the small Stanford Dogs."""
    stanford_dogs(mirror.folder)
    put_folder(root / "data", ["lucy"], 12)
    return {"stanford_dogs": {"base_url": mirror.url}}


def put_shoes(mirror: Mirror, root: Path) -> Addresses:
    """A table of four good pictures for each of SHOES, as many thumbnails, and two that are none; ten for the test."""
    rows: list[tuple[str, str]] = [("image", "label"), (f"{mirror.url}/gone.jpg", "boots")]
    for label, kind in enumerate(SHOES):
        for number in range(5):
            size = (80, 72) if number else (40, 40)
            put(mirror.folder / f"{kind}/{number}.jpg", jpeg(100 * label + number, label, size))
            rows.append((f"{mirror.url}/{kind}/{number}.jpg", kind))
    put(mirror.folder / "page.jpg", b"<html>hotlinking forbidden")
    table(root / "data/shoes.csv", [*rows, (f"{mirror.url}/page.jpg", "boots")])
    put_folder(root / "data/camera", SHOES, 2)
    return {}
