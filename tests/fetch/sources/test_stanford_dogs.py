"""Stanford Dogs from a mirror: three tars with the real names."""

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from headstart.base.errors import UserError
from headstart.fetch.sources import stanford_dogs as dogs
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import LocalFile, Rejection, SourceImage
from mirror import Mirror, serving
from pictures import fetched, params, put
from trees import BREEDS, stanford_dogs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    stanford_dogs(tmp_path / "dogs")
    return tmp_path / "dogs"


@pytest.fixture
def mirror(folder: Path) -> Iterator[Mirror]:
    with serving(Mirror(folder)) as mirror:
        yield mirror


def found(folder: Path, *breeds: str, **options: Any) -> list[SourceImage | Rejection]:
    section = {"breeds": breeds, "base_url": folder.as_uri()} | options
    return collect_images(params({"stanford_dogs": section}).fetch, folder)


def pictures(folder: Path, *breeds: str, **options: Any) -> list[SourceImage]:
    return [item for item in found(folder, *breeds, **options) if isinstance(item, SourceImage)]


@pytest.mark.parametrize("breed", ["French bulldog", "french_bulldog", "FRENCHBULLDOG", "French-Bulldog "])
def test_breeds_by_name(folder: Path, breed: str) -> None:
    items = pictures(folder, breed)
    assert len(items) == BREEDS["n02108915-French_bulldog"]
    assert {item.label for item in items} == {"French bulldog"}
    assert {item.split for item in items} == {None}
    assert items[0].location.endswith("/images.tar:n02108915-French_bulldog/n02108915_0.jpg")


def test_all_breeds_sorted_by_name(folder: Path) -> None:
    items = pictures(folder)
    assert len(items) == sum(BREEDS.values())
    names = list(dict.fromkeys(item.label for item in items))
    assert names == ["black-and-tan coonhound", "bloodhound", "Chihuahua", "French bulldog", "giant schnauzer"]


def test_boxes_and_pixels_come_out_of_the_tars(folder: Path, tmp_path: Path) -> None:
    items = pictures(folder, "French bulldog", "Chihuahua")
    assert Counter(len(item.boxes) for item in items) == {1: 6, 2: 1}
    assert (items[0].boxes[0].xmin, items[0].frame) == (5, (50, 40))
    assert all(isinstance(item.content, LocalFile) and item.content.size for item in items)
    section = {"breeds": ["French bulldog", "Chihuahua"], "base_url": folder.as_uri()}
    manifest = fetched(tmp_path, {"stanford_dogs": section})
    assert Counter(image.label for image in manifest.images) == {"Chihuahua": 3, "French bulldog": 4}
    assert [Path(image.file_name).suffix for image in manifest.images].count(".png") == 1, "one .jpg is a PNG"
    assert {annotation.bbox for annotation in manifest.annotations} == {(5, 0, 44, 39), (20, 0, 29, 39)}


def test_the_official_split_can_be_pinned(folder: Path) -> None:
    assert Counter(item.split for item in pictures(folder, official_split=True)) == {"train": 7, "test": 6}


def test_tars_are_kept_for_the_next_project(mirror: Mirror, folder: Path) -> None:
    assert pictures(folder, "Chihuahua", base_url=mirror.url)
    sizes = mirror.requests.total()
    assert pictures(folder, "bloodhound", base_url=mirror.url)
    assert mirror.requests.total() == 2 * sizes
    assert all("If-None-Match" in headers for headers in mirror.headers[sizes:]), "validated, not downloaded again"


def test_a_listed_picture_that_is_not_in_the_tar(folder: Path) -> None:
    stanford_dogs(folder, missing="n02085620-Chihuahua/n02085620_0.jpg")
    rejected = [item for item in found(folder, "Chihuahua") if isinstance(item, Rejection)]
    assert [(item.kind, item.reason) for item in rejected] == [("missing", "listed, but not in images.tar")]


def test_invalid_breeds_and_tars_are_one_error_line(folder: Path) -> None:
    wrong = "stanford_dogs.breeds: 'French buldog': no such breed; did you mean 'French bulldog'?"
    with pytest.raises(UserError, match=re.escape(wrong)):
        found(folder, "French buldog")
    with pytest.raises(UserError, match=r"'zzz': no such breed; it has black-and-tan|'zzz': no such breed; it has"):
        found(folder, "zzz")
    put(folder / "images.tar", b"<html>moved")
    with pytest.raises(UserError, match=r"stanford_dogs\.base_url: .*: a tar is not as it should be"):
        found(folder, "Chihuahua")
    (folder / "lists.tar").unlink()
    with pytest.raises(UserError, match=r"lists\.tar: no such file; change the address of the mirror"):
        found(folder, "Chihuahua")


def tar_of(path: Path, *members: tuple[str, bytes, bytes]) -> None:
    """A tar of (name, type, content) members."""
    with tarfile.open(path, "w") as tar:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "elsewhere"
            tar.addfile(member, io.BytesIO(content))


def matlab_list(*files: str) -> bytes:
    out = io.BytesIO()
    cells = np.empty((len(files), 1), object)
    cells[:, 0] = files
    savemat(out, {"file_list": cells})
    return out.getvalue()


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("train_list.mat", tarfile.DIRTYPE, b"")], "'train_list.mat': no file, where a file of at most"),
        ([("train_list.mat", tarfile.SYMTYPE, b"")], "'train_list.mat': no file"),
        ([("train_list.mat", tarfile.REGTYPE, b"x" * 999)], r"train_list\.mat: not a list of files"),
        ([("other.mat", tarfile.REGTYPE, b"")], "train_list.mat"),
        ([("train_list.mat", tarfile.REGTYPE, matlab_list("../../etc/passwd.jpg"))], "is not like n02108915-French"),
        ([("train_list.mat", tarfile.REGTYPE, matlab_list("n1-a/b\nc.jpg"))], "is not like n02108915-French"),
    ],
)
def test_odd_members_of_the_lists_are_one_error_line(
    folder: Path, members: list[tuple[str, bytes, bytes]], problem: str
) -> None:
    tar_of(folder / "lists.tar", *members)
    with pytest.raises(UserError, match=rf"stanford_dogs\.base_url: .*: a tar is not as it should be \(.*{problem}"):
        found(folder, "Chihuahua")


def test_a_member_of_gigabytes_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dogs, "MAX_MEMBER_BYTES", 1000)
    tar_of(folder / "lists.tar", ("train_list.mat", tarfile.REGTYPE, bytes(1001)))
    with pytest.raises(UserError, match="1,001 bytes, where a file of at most 1,000 bytes belongs"):
        found(folder, "Chihuahua")


@pytest.mark.parametrize("broken", [b"<annotation><obj", bytes(1001)])
def test_a_picture_whose_annotation_cannot_be_read_is_rejected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    monkeypatch.setattr(dogs, "MAX_MEMBER_BYTES", 1000)
    monkeypatch.setattr(dogs, "_read_split_lists", lambda _: {"n02085620-Chihuahua/n02085620_0.jpg": "train"})
    tar_of(folder / "annotation.tar", ("Annotation/n02085620-Chihuahua/n02085620_0", tarfile.REGTYPE, broken))
    (rejected,) = found(folder, "Chihuahua")
    assert isinstance(rejected, Rejection)
    assert (rejected.kind, rejected.reason[:15]) == ("annotation", "annotation.tar:")


def test_a_tar_that_was_cut_is_one_error_line(folder: Path) -> None:
    for name in ("lists", "annotation", "images"):
        data = (folder / f"{name}.tar").read_bytes()
        put(folder / f"{name}.tar", data[: len(data) // 3])
        with pytest.raises(UserError, match="a tar is not as it should be"):
            found(folder, "Chihuahua")
        put(folder / f"{name}.tar", data)
