"""The gallery's files."""

import csv
from pathlib import Path

from headstart.evaluation.gallery import Gallery, GalleryItem, slug, write_gallery


def test_pictures_are_numbered_and_listed(tmp_path: Path) -> None:
    items = [GalleryItem("a", b"1", ("x.png", None)), GalleryItem("b", b"2", ("y.png", 0.5))]
    write_gallery(tmp_path, Gallery("list.csv", ("file_name", "confidence"), items))
    assert (tmp_path / "001-a.jpg").read_bytes() == b"1"
    with (tmp_path / "list.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["thumbnail", "file_name", "confidence"],
            ["001-a.jpg", "x.png", ""],
            ["002-b.jpg", "y.png", "0.5"],
        ]


def test_a_slug_is_a_file_name() -> None:
    assert slug("a/b: é? ") == "a-b-é"
    assert len(slug("x" * 200)) == 80
