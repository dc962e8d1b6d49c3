"""Augmented copies of all examined pictures: the augment stage stores those of the training split alone."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from headstart.augment.stage import write_copy
from headstart.base.cache_dir import make_room, mark_used
from headstart.base.code_digest import code_digest
from headstart.base.files import read_json, write_json
from headstart.base.manifest import Image, read_manifest
from headstart.base.parallel import parallel_map
from headstart.base.threads import one_torch_thread
from headstart.params.root import Params

_INDEX = "copies.json"  # written last: its presence means that all copies are there


def copies_of_all(images: Sequence[Image], params: Params, root: Path) -> list[list[Image]]:
    """For each picture its `augment.copies` copies, the same whichever split the picture is in.

    Those of training pictures are the augment stage's; the others are made under .cache, once.

    Args:
        images: originals, each in one of the splits.
        params: all of params.yaml.
        root: the repository root.

    Raises:
        UserError: the augment stage has not run.
    """
    found: dict[int, list[Image]] = {image.id: [] for image in images}
    if not params.augment.copies:
        return list(found.values())
    for image in read_manifest(root / "stages/augment/train.json").images:
        if image.copy_of in found:
            found[image.copy_of].append(image)
    missing = [image for image in images if not found[image.id]]
    for copy in _cached_copies(missing, params, root):
        assert copy.copy_of is not None
        found[copy.copy_of].append(copy)
    return [found[image.id] for image in images]


def _cached_copies(images: Sequence[Image], params: Params, root: Path) -> list[Image]:
    """Copies of these pictures, from .cache/cross-validation or made there."""
    hashes = [[image.id, image.sha256] for image in images]
    code = [f"pillow {version('pillow')}", f"torch {torch.__version__}", code_digest(["headstart.augment"])]
    key = json.dumps([hashes, params.augment.model_dump(), params.seed, code], sort_keys=True)
    folder = root / ".cache/cross-validation" / f"copies-{hashlib.sha256(key.encode()).hexdigest()[:25]}"
    mark_used(folder, f"copies of {len(images):,} pictures of val and test")
    if (folder / _INDEX).is_file():
        return [Image.model_validate(row) for row in read_json(folder / _INDEX)]
    make_room(folder, 0)

    def make_copies(image: Image) -> list[Image]:
        place = folder.relative_to(root).as_posix()
        numbers = range(params.augment.copies)
        return [write_copy(image, (), n, params, root, gray_fill=False, folder=place)[0] for n in numbers]

    with one_torch_thread():  # pictures are transformed in parallel, one a core
        copies = [copy for some in parallel_map(make_copies, images, "copies of val and test") for copy in some]
    write_json(folder / _INDEX, [copy.model_dump(exclude_none=True) for copy in copies])
    return copies
