"""Answers of folds, each stored when its fold is finished: a kill loses one fold, and an edit elsewhere none."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from headstart.base.arrays import Floats
from headstart.base.cache_dir import mark_used
from headstart.base.code_digest import code_digest
from headstart.base.parallel import parallel_map
from headstart.base.threads import one_torch_thread
from headstart.cross_validation.folds import Examined
from headstart.features.row_cache import read_cached_rows, write_cached_rows

# What computes an answer from features, beside what the features' own key says: part of the cache's key.
HEAD_CODE = (
    "headstart.cross_validation",
    "headstart.models.classifier",
    "headstart.models.heads",
    "headstart.training",
)
_LIBRARIES = ("numpy", "scikit-learn", "scipy", "torch")

AnswerFold = Callable[[int], Tensor]  # number of a fold -> answers (pictures of the fold, width), in their order


@dataclass(frozen=True)
class AnswerCache:
    """Where the answers of one kind of model are kept: rows by a picture's sha256, a file for each fold.

    Attributes:
        folder: .cache/cross-validation/<key>.
        description: for `headstart cache`.
    """

    folder: Path
    description: str

    @classmethod
    def of(
        cls, root: Path, description: str, examined: Examined, code: Sequence[str], *key_parts: object
    ) -> "AnswerCache":
        """The cache of a model; the key is the hash of the pictures, their folds, the code and these parts.

        Args:
            root: of the repository.
            description: of the model.
            examined: the pictures.
            code: modules and packages that compute an answer.
            key_parts: further JSON values that it depends on.
        """
        pictures = [
            [image.sha256, image.label, image.confidence, unit, fold]
            for image, unit, fold in zip(examined.images, examined.units.tolist(), examined.fold.tolist(), strict=True)
        ]
        libraries = [f"{name} {version(name)}" for name in _LIBRARIES]
        text = json.dumps([examined.labels, pictures, libraries, code_digest(code), *key_parts], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:32]
        return cls(root / ".cache/cross-validation" / key, f"{description}, {examined.folds} folds")

    def answers(self, examined: Examined, answer_fold: AnswerFold, *, parallel: bool = False) -> Floats:
        """Answers of all pictures out of fold, (n, width); only folds that are missing are computed.

        Args:
            examined: the pictures.
            answer_fold: fits the model on what is outside a fold, and answers for the fold.
            parallel: folds run in threads, one a core; each computes in one thread of its own.
        """
        mark_used(self.folder, self.description)
        rows = read_cached_rows(self.folder, {image.sha256 for image in examined.images})
        names = [
            [image.sha256 for image, of in zip(examined.images, examined.fold, strict=True) if of == fold]
            for fold in range(examined.folds)
        ]
        missing = [fold for fold in range(examined.folds) if any(name not in rows for name in names[fold])]

        def answer_and_store(fold: int) -> dict[str, Tensor]:
            return write_cached_rows(self.folder, names[fold], answer_fold(fold).detach().double())

        if parallel and missing:
            with one_torch_thread():
                found = parallel_map(answer_and_store, missing, f"evaluate: {self.description}")
        else:
            found = [answer_and_store(fold) for fold in missing]
        for some in found:
            rows |= some
        answers: Floats = torch.stack([rows[image.sha256] for image in examined.images]).numpy()
        return answers
