"""Source `stanford_dogs`: the breeds asked for, read from inside the uncompressed tar, with their boxes."""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from headstart.base.errors import UserError, did_you_mean
from headstart.base.manifest import Split
from headstart.fetch.http.download import download_file
from headstart.fetch.sources import voc
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage
from headstart.params.fetch import DownloadParams, StanfordDogsParams

LICENSE = "pictures of ImageNet: for non-commercial research and education"
LANDING_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
MAX_MEMBER_BYTES = 20_000_000  # of a list or an annotation; the real ones have at most 400 kB


def list_images(params: StanfordDogsParams, downloads: DownloadParams) -> Iterator[SourceImage | Rejection]:
    """The pictures of the breeds asked for, sorted by breed and name, labelled `French bulldog`.

    Raises:
        UserError: a breed is unknown, or one of the three tars cannot be downloaded or read.
    """
    tars = {name: download_file(f"{params.base_url}/{name}.tar", downloads) for name in ("lists", "annotation")}
    try:
        split_of_file = _read_split_lists(tars["lists"])
        folders = _breed_folders(params.breeds, sorted({file.partition("/")[0] for file in split_of_file}))
        chosen = sorted((file for file in split_of_file if file.partition("/")[0] in folders), key=_breed_sort_key)
        annotations = _read_annotations(tars["annotation"], folders)
        tars["images"] = download_file(f"{params.base_url}/images.tar", downloads)
        members = _index_tar(tars["images"], folders)
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise UserError(f"stanford_dogs.base_url: {params.base_url}: a tar is not as it should be ({error})") from None
    for file in chosen:
        location, breed = f"{params.base_url}/images.tar:{file}", breed_name(file)
        if file not in members:
            yield Rejection("stanford_dogs", location, "missing", "listed, but not in images.tar")
            continue
        annotation = annotations.get(file.removesuffix(".jpg"))
        if isinstance(annotation, str):
            yield Rejection("stanford_dogs", location, "annotation", f"annotation.tar: {annotation}")
            continue
        boxes = annotation.boxes if annotation else ()
        yield SourceImage(
            location=location,
            source="stanford_dogs",
            content=LocalFile(tars["images"], *members[file]),
            label=breed,
            split=split_of_file[file] if params.official_split else None,
            boxes=tuple(SourceBox(breed, box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes),
            frame=annotation.frame if annotation else None,
            license=LICENSE,
            landing_url=LANDING_URL,
        )


def breed_name(file: str) -> str:
    """`n02108915-French_bulldog/…` -> `French bulldog`."""
    return file.partition("/")[0].partition("-")[2].replace("_", " ")


def _breed_sort_key(file: str) -> tuple[str, str]:
    return breed_name(file).casefold(), file


def _breed_folders(breeds: tuple[str, ...], known: list[str]) -> set[str]:
    """The folders of the breeds; case, spaces, hyphens and underscores do not matter."""
    if not breeds:
        return set(known)
    folder_of_breed = {_normalize_name(breed_name(folder)): folder for folder in known}
    for breed in breeds:
        if _normalize_name(breed) not in folder_of_breed:
            names = [breed_name(folder) for folder in known]
            has = f"it has {', '.join(names[:5])}, …"
            fix = did_you_mean(breed, names, has, count=3, cutoff=0.5, normalize=_normalize_name)
            raise UserError(f"stanford_dogs.breeds: {breed!r}: no such breed; {fix}")
    return {folder_of_breed[_normalize_name(breed)] for breed in breeds}


def _normalize_name(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _read_split_lists(path: Path) -> dict[str, Split]:
    """All pictures and the official split of each, out of two Matlab files in a tar.

    Raises:
        ValueError, tarfile.TarError: it is not that.
    """
    split_of_file: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("train", "test")
    with tarfile.open(path, "r:") as tar:
        for split in splits:
            name = f"{split}_list.mat"
            split_of_file |= dict.fromkeys(_read_file_list(_read_member(tar, tar.getmember(name)), name), split)
    return split_of_file


def _read_file_list(data: bytes, name: str) -> list[str]:
    """The pictures `folder/name.jpg` in a Matlab file."""
    from scipy.io import loadmat

    try:
        files = [str(cell[0][0]) for cell in loadmat(io.BytesIO(data))["file_list"]]
    except Exception as error:  # loadmat has no error class of its own: struct.error, zlib.error, IndexError, …
        raise ValueError(f"{name}: not a list of files ({type(error).__name__}: {error})") from None
    for file in files:
        if not re.fullmatch(r"n\d+-[^/\\\s]+/[\w.-]+\.jpg", file):
            raise ValueError(f"{name}: {file[:80]!r} is not like n02108915-French_bulldog/n02108915_1.jpg")
    return files


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or member.size > MAX_MEMBER_BYTES:
        found = f"{member.size:,} bytes" if member.isreg() else "no file"
        raise ValueError(f"{member.name[:80]!r}: {found}, where a file of at most {MAX_MEMBER_BYTES:,} bytes belongs")
    data = file.read()
    if len(data) != member.size:
        raise ValueError(f"{member.name[:80]!r}: the tar ends within it")
    return data


def _read_annotations(path: Path, folders: set[str]) -> dict[str, voc.VocAnnotation | str]:
    """VOC files without a suffix, by `folder/name`; for one that cannot be read, why. They count pixels from 0."""
    annotations: dict[str, voc.VocAnnotation | str] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            folder, _, name = member.name.removeprefix("./").removeprefix("Annotation/").rpartition("/")
            if folder not in folders or member.isdir():
                continue
            try:
                annotations[f"{folder}/{name}"] = voc.parse_annotation(_read_member(tar, member))
            except ValueError as error:
                annotations[f"{folder}/{name}"] = str(error)
    return annotations


def _index_tar(path: Path, folders: set[str]) -> dict[str, tuple[int, int]]:
    """Offset and size in bytes of each picture of the breeds within the tar: only the headers are read."""
    members = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            file = member.name.removeprefix("./").removeprefix("Images/")
            # A sparse member's bytes do not lie in one piece: it is as if it were missing.
            if member.isreg() and not member.issparse() and file.partition("/")[0] in folders:
                members[file] = member.offset_data, member.size
    return members
