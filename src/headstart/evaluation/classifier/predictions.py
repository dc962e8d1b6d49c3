"""Logits of both classifiers on val and test, and how well sources can be predicted from the backbone's features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from headstart.base.manifest import Image, Manifest, Split
from headstart.engine.device import configure_torch
from headstart.evaluation.classifier.model_features import ModelFeatures, run_with_features, split_logits, to_numpy
from headstart.evaluation.network_outputs import fp32_outputs
from headstart.features.embeddings import compute_embeddings
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.metrics.calibration import SplitLogits
from headstart.metrics.source_bias import LabelSources, measure_source_bias, source_collection
from headstart.models import classifier
from headstart.models.file import ModelSpec, hash_tensors, read_model_file, strip_prefix
from headstart.params.root import Params

Embed = Callable[[Sequence[Image]], Tensor]  # pictures -> features (n, features) of the pretrained backbone


@dataclass(frozen=True)
class StageClassifier:
    """The classifier of a training stage: the content of its model file."""

    tensors: dict[str, Tensor]
    spec: ModelSpec

    @classmethod
    def read(cls, stage: str, root: Path) -> "StageClassifier":
        """Read the model file.

        Raises:
            UserError: it is missing or unreadable.
        """
        return cls(*read_model_file(root / f"stages/{stage}/model.safetensors"))

    def logits(self, splits: Mapping[Split, Manifest], params: Params, root: Path) -> SplitLogits:
        """Of val and test, by the whole network in fp32, whatever `train.precision` is."""
        network = classifier.build(self.tensors, self.spec)
        return _split_logits(fp32_outputs(network, self.spec, params, root), self.spec, splits)

    def logits_and_features(
        self, splits: Mapping[Split, Manifest], params: Params, root: Path
    ) -> tuple[SplitLogits, ModelFeatures]:
        """The same logits to the bit, and the backbone's features, in one pass of each picture."""
        return run_with_features(classifier.build(self.tensors, self.spec), self.spec, splits, params, root)

    def embed(self, params: Params, root: Path) -> Embed:
        """Its backbone as a function, in the precision of training.

        That of train-head is frozen: features of train and val are in the cache already.
        """
        compute = configure_torch(params.train, params.seed)
        network, trunk = classifier.build(self.tensors, self.spec), strip_prefix("trunk.", self.tensors)
        backbone = FrozenBackbone.of(lambda: network.trunk, trunk, self.spec, compute, root)
        return lambda images: compute_embeddings(images, backbone)


def logits_of_both(
    head_only: StageClassifier,
    fine_tuned: StageClassifier,
    splits: Mapping[Split, Manifest],
    params: Params,
    root: Path,
) -> tuple[SplitLogits, SplitLogits, ModelFeatures]:
    """Logits of both models, computed in one way: where fine-tuning has changed no tensor they are the same to the bit.

    The models are one then, and it runs once. The features are the fine-tuned model's.
    """
    of_fine_tuned, features = fine_tuned.logits_and_features(splits, params, root)
    if hash_tensors(head_only.tensors) == hash_tensors(fine_tuned.tensors):
        return of_fine_tuned, of_fine_tuned, features
    return head_only.logits(splits, params, root), of_fine_tuned, features


def source_bias(embed: Embed, splits: Mapping[Split, Manifest], params: Params) -> tuple[LabelSources, ...]:
    """How well sources can be predicted from the training and validation pictures, each distinct picture once."""
    images = list({image.sha256: image for image in (*splits["train"].images, *splits["val"].images)}.values())
    sources = [source_collection(image.source) for image in images]
    if len(set(sources)) < 2:
        return ()
    return measure_source_bias(
        to_numpy(embed(images)),
        [image.label or "" for image in images],
        sources,
        [image.group for image in images],
        tested={(image.label or "", source_collection(image.source)) for image in splits["test"].images},
        seed=params.seed,
    )


def _split_logits(
    logits: Callable[[Manifest], Tensor], spec: ModelSpec, splits: Mapping[Split, Manifest]
) -> SplitLogits:
    return split_logits(logits(splits["val"]), logits(splits["test"]), spec, splits)
