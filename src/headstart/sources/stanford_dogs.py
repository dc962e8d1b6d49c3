"""Stanford Dogs: the breeds asked for, read out of the tar where it lies, with their boxes."""

import difflib
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.download import large
from headstart.errors import UserError
from headstart.fetch_params import DownloadParams, StanfordDogsParams
from headstart.section import Split
from headstart.sources import voc
from headstart.sources.wanted import Box, Failed, Local, Wanted

LICENSE = "pictures of ImageNet: for non-commercial research and education"
LANDING_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs/"


def wanted(params: StanfordDogsParams, downloads: DownloadParams) -> Iterator[Wanted | Failed]:
    """The pictures of the breeds asked for, sorted by breed and name, labelled `French bulldog`.

    Raises:
        UserError: a breed is unknown, or one of the three tars cannot be had or read.
    """
    tars = {name: large(f"{params.base_url}/{name}.tar", downloads) for name in ("lists", "annotation")}
    try:
        listed = _listed(tars["lists"])
        folders = _folders(params.breeds, sorted({file.partition("/")[0] for file in listed}))
        chosen = sorted((file for file in listed if file.partition("/")[0] in folders), key=_by_breed)
        annotations = _annotations(tars["annotation"], folders)
        tars["images"] = large(f"{params.base_url}/images.tar", downloads)
        members = _members(tars["images"], folders)
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise UserError(f"stanford_dogs.base_url: {params.base_url}: a tar is not as it should be ({error})") from None
    for file in chosen:
        location, breed = f"{params.base_url}/images.tar:{file}", name_of(file)
        if file not in members:
            yield Failed("stanford_dogs", location, "missing", "listed, but not in images.tar")
            continue
        annotation = annotations.get(file.removesuffix(".jpg"))
        yield Wanted(
            location=location,
            source="stanford_dogs",
            content=Local(tars["images"], *members[file]),
            label=breed,
            split=listed[file] if params.official_split else None,
            boxes=tuple(Box(breed, b.xmin, b.ymin, b.xmax, b.ymax) for b in annotation.boxes) if annotation else (),
            frame=annotation.frame if annotation else None,
            license=LICENSE,
            landing_url=LANDING_URL,
        )


def name_of(file: str) -> str:
    """`n02108915-French_bulldog/…` -> `French bulldog`."""
    return file.partition("/")[0].partition("-")[2].replace("_", " ")


def _by_breed(file: str) -> tuple[str, str]:
    return name_of(file).casefold(), file


def _folders(breeds: tuple[str, ...], known: list[str]) -> set[str]:
    """The folders of the breeds; case, spaces, hyphens and underscores do not matter."""
    if not breeds:
        return set(known)
    by_name = {_plain(name_of(folder)): folder for folder in known}
    for breed in breeds:
        if _plain(breed) not in by_name:
            near = difflib.get_close_matches(_plain(breed), by_name, n=3, cutoff=0.5)
            names = ", ".join(name_of(by_name[match]) for match in near)
            fix = (
                f"did you mean {names}?" if near else f"it has {', '.join(name_of(folder) for folder in known[:5])}, …"
            )
            raise UserError(f"stanford_dogs.breeds: {breed!r}: no such breed; {fix}")
    return {by_name[_plain(breed)] for breed in breeds}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _listed(path: Path) -> dict[str, Split]:
    """All pictures and the official split of each, out of two Matlab files in a tar."""
    from scipy.io import loadmat

    found: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("train", "test")
    with tarfile.open(path) as tar:
        for split in splits:
            file = tar.extractfile(f"{split}_list.mat")
            assert file is not None
            table: dict[str, Any] = loadmat(io.BytesIO(file.read()))
            found |= {str(cell[0][0]): split for cell in table["file_list"]}
    return found


def _annotations(path: Path, folders: set[str]) -> dict[str, voc.Annotation]:
    """VOC files without a suffix, by `folder/name`. They count pixels from 0, unlike VOC."""
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            folder, _, name = member.name.removeprefix("./").removeprefix("Annotation/").rpartition("/")
            file = tar.extractfile(member) if member.isfile() and folder in folders else None
            if file is not None:
                found[f"{folder}/{name}"] = voc.parse(file.read())
    return found


def _members(path: Path, folders: set[str]) -> dict[str, tuple[int, int]]:
    """Where in the tar each picture of the breeds begins, and its size: only the headers are read."""
    found = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            file = member.name.removeprefix("./").removeprefix("Images/")
            if member.isfile() and file.partition("/")[0] in folders:
                found[file] = member.offset_data, member.size
    return found
