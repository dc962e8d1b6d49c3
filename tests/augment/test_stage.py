"""Stored copies are what the manifest describes, and only training pictures have some."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

import synthetic_boxes
import tiny
from conftest import Project
from headstart.augment.transforms import sample_transform, transform_image
from headstart.base.files import sha256_file
from headstart.base.manifest import Annotation
from pictures import difference


def test_stored_copies_are_in_the_manifest(project: Project) -> None:
    before = tiny.manifest(project.root, "split", "train")
    after = tiny.manifest(project.root, "augment", "train")
    originals = [image for image in after.images if image.copy_of is None]
    copies = [image for image in after.images if image.copy_of is not None]
    assert originals == list(before.images)
    assert [copy.copy_of for copy in copies] == [image.id for image in originals]
    assert len({image.id for image in after.images}) == 24
    for original, copy in zip(originals, copies, strict=True):
        path = project.root / copy.file_name
        assert path.parent == project.root / "stages/augment/images"
        assert sha256_file(path) == copy.sha256 != original.sha256
        same = {"id", "file_name", "sha256", "copy_of"}
        assert copy.model_dump(exclude=same) == original.model_dump(exclude=same)
        with Pillow.open(path) as stored, Pillow.open(project.root / original.file_name) as first:
            assert (stored.size, stored.format) == ((copy.width, copy.height), "PNG")
            assert difference(stored, first) > 10
    assert tiny.read_json(project.root / "stages/augment/metrics.json") == {"originals": 12, "copies": 12}
    assert len(list((project.root / "stages/augment/images").iterdir())) == 12


def test_val_and_test_are_not_augmented(project: Project) -> None:
    names = {image.file_name for image in tiny.manifest(project.root, "fetch", "annotations").images}
    for name in ("val", "test"):
        images = tiny.manifest(project.root, "split", name).images
        assert {image.file_name for image in images} <= names
        assert all(sha256_file(project.root / image.file_name) == image.sha256 for image in images)
        held = {image.id for image in images}
        assert not held & {image.copy_of for image in tiny.manifest(project.root, "augment", "train").images}


def test_a_stored_copy_is_the_transform_of_its_picture_and_number(project: Project) -> None:
    train = tiny.manifest(project.root, "augment", "train").images
    original, copy = train[0], next(image for image in train if image.copy_of == train[0].id)
    with Pillow.open(project.root / original.file_name) as opened:
        pixels = torch.from_numpy(np.asarray(opened).copy()).permute(2, 0, 1)
    transform = sample_transform(project.params.augment, project.params.seed, original.sha256, 0)
    with Pillow.open(project.root / copy.file_name) as stored:
        assert np.array_equal(np.asarray(stored), transform_image(pixels, transform).permute(1, 2, 0).numpy())


def stage(root: Path, **changes: Any) -> list[tuple[str, Path]]:
    """Run up to augment on two kinds of files; (mode, path) of the stored copies."""
    tiny.make_pictures(root, 4)
    for number in range(4):
        tiny.texture(50 + number, 0).convert("L").save(root / f"data/red/grey-{number}.png")
        tiny.texture(60 + number, 1).save(root / f"data/blue/photo-{number}.jpg", quality=95)
    tiny.run(root, tiny.make_params(augment=changes), "fetch", "split", "augment")
    found = []
    for image in tiny.manifest(root, "augment", "train").images:
        if image.copy_of:
            with Pillow.open(root / image.file_name) as opened:
                found.append((opened.mode, root / image.file_name))
    return found


def test_grey_stays_grey_and_jpeg_stays_jpeg(tmp_path: Path) -> None:
    copies = stage(tmp_path, copies=3, noise=0)
    assert {mode for mode, path in copies} == {"L", "RGB"}
    assert {path.suffix for _, path in copies} == {".png", ".jpg"}
    assert len({path.read_bytes() for _, path in copies}) == len(copies) == 24


def test_no_copies(tmp_path: Path) -> None:
    assert stage(tmp_path, copies=0) == []
    originals = tiny.manifest(tmp_path, "split", "train").images
    assert tiny.manifest(tmp_path, "augment", "train").images == originals
    assert (tmp_path / "stages/augment/images").is_dir(), "DVC wants every out to be there"


class CountingTuple(tuple[Annotation, ...]):
    """Counts how many of its items are looked at."""

    seen = 0

    def __iter__(self) -> Iterator[Annotation]:
        for item in super().__iter__():
            self.seen += 1
            yield item


def test_twenty_thousand_boxes_are_looked_at_once() -> None:
    """Not once for each of 4,000 pictures."""
    names, per_picture = ("cat",), 5
    truth = synthetic_boxes.manifest([[("cat", (1.0, 1.0, 9.0, 9.0))] * per_picture] * 4000, names)
    counted = CountingTuple(reversed(truth.annotations))
    grouped = truth.model_copy(update={"annotations": counted}).annotations_by_image()
    assert counted.seen == 20_000
    assert list(grouped) == [image.id for image in truth.images]
    for image_id in (1, 777, 4000):
        last = per_picture * image_id
        assert [annotation.id for annotation in grouped[image_id]] == list(range(last, last - per_picture, -1))
    assert synthetic_boxes.manifest([[], []]).annotations_by_image() == {1: [], 2: []}
