"""Generated pictures for tests, and the shortest params that fetch them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.base.manifest import Manifest, read_manifest
from headstart.fetch.outputs import FETCH_FOLDER
from headstart.params.fetch import FetchParams
from headstart.params.root import Params
from tiny import fetch

ORIENTATION = 0x0112


def picture(seed: int = 0, size: tuple[int, int] = (40, 24), mode: str = "RGB") -> Image.Image:
    """Smooth (so that JPEG is nearly exact), with four different corners (so that a wrong rotation is detected)."""
    rng = np.random.default_rng(seed)
    corners = rng.permutation(np.linspace(20, 235, 12)).reshape(2, 2, 3).astype(np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", orientation: int | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    if kind == "JPEG":
        options = {"quality": 95, "subsampling": 0} | options
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """Largest difference of a pixel, 0 to 255; 255 where the sizes differ."""
    if one.size != other.size:
        return 255.0
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).max())


def put(path: Path, data: bytes | None = None, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed)) if data is None else data)
    return path


def params(*sources: Mapping[str, Any], max_failed: int = 0, task: str = "classify", **options: Any) -> Params:
    """Params with `task` and `fetch` alone: all that the stage may read; `options` are further keys of `fetch`."""
    section = FetchParams.model_validate({"sources": list(sources), "max_failed": max_failed, **options})
    sections: dict[str, Any] = {"task": task, "fetch": section}
    return Params.model_construct(**sections)


def fetched(
    root: Path, *sources: Mapping[str, Any], max_failed: int = 0, task: str = "classify", **options: Any
) -> Manifest:
    fetch(params(*sources, max_failed=max_failed, task=task, **options), root)
    return read_manifest(root / FETCH_FOLDER / "annotations.json")


def table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(str(cell) for cell in row) + "\n" for row in rows), encoding="utf-8")
    return path
