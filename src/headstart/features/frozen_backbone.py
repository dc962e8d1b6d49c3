"""A pretrained backbone with nothing in it training: how it runs, and where what it puts out is cached."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from headstart.base.code_digest import code_digest
from headstart.engine.device import Compute
from headstart.engine.input_spec import InputSpec
from headstart.models.file import ModelSpec, hash_tensors

# What computes rows, from a picture's file to the cache: part of its key.
ROW_CODE = (
    "headstart.engine",
    "headstart.features",
    *(
        f"headstart.models.{name}"
        for name in ("backbone", "block_features", "detector_parts", "freeze", "pretrained", "pyramid")
    ),
    "headstart.models.torchvision_detectors",
)


@dataclass(frozen=True)
class FrozenBackbone:
    """A pretrained backbone, how it runs, and where its features are cached.

    Attributes:
        build: returns the network; called only when a picture is missing, since it costs seconds of imports.
        sha256: of its weights.
        input_spec: preprocessing.
        compute: device, precision, kernels.
        root: of the repository.
        name: of the network: two may share names and shapes of weights, and compute something else.
        max_gb: that activations may take, 10^9 bytes.
        levels: of the blocks whose features a head takes beside the pooled ones, as in the model file.
    """

    build: Callable[[], nn.Module]
    sha256: str
    input_spec: InputSpec
    compute: Compute
    root: Path
    name: str = ""
    max_gb: float = math.inf
    levels: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        build: Callable[[], nn.Module],
        tensors: Mapping[str, Tensor],
        spec: ModelSpec,
        compute: Compute,
        root: Path,
        max_gb: float = math.inf,
    ) -> "FrozenBackbone":
        """The backbone of a model: `tensors` are its weights, `spec` gives its name and preprocessing."""
        name = spec.backbone or spec.detector
        return cls(build, hash_tensors(tensors), spec.input, compute, root, name, max_gb, spec.levels)

    def cache_folder(self, kind: str, *more: object) -> Path:
        """Where rows are cached: the key is all that they depend on, the picture aside."""
        code = [*(f"{name} {version(name)}" for name in ("pillow", "timm", "torch")), code_digest(ROW_CODE)]
        parts = (self.name, self.sha256, self.input_spec.model_dump_json(), self.compute.description(), *code, *more)
        return self.root / f".cache/{kind}" / hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:32]

    def description(self) -> str:
        """What rows depend on: `resnet50 (weights 1a2b3c4d), 224 px squash, cpu bf16`."""
        compute = self.compute.description()
        return f"{self.name} (weights {self.sha256[:8]}), {self.input_spec.description()}, {compute}".lstrip()
