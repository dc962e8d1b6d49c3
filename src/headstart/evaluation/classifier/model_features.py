"""The exported network's features, in the passes that give its logits: what "none of these" is fitted and tested on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headstart.base.arrays import Floats, Ints
from headstart.base.manifest import Manifest, Split
from headstart.base.units import unit_numbers
from headstart.engine.pixels import load_pixels
from headstart.evaluation.network_outputs import fp32_pixel_outputs
from headstart.images.foreign_pictures import PER_KIND, foreign_pictures
from headstart.metrics.calibration import SplitLogits
from headstart.metrics.strangeness import pick_for_bank
from headstart.models import classifier
from headstart.models.classifier import Classifier
from headstart.models.file import ModelSpec
from headstart.models.strangeness_features import ClassifierWithFeatures, FeaturePlan, plan_features
from headstart.params.root import Params


@dataclass(frozen=True)
class ModelFeatures:
    """Features (n, f) of the backbone, in fp32 as the exported model computes them.

    Attributes:
        plan: which features.
        bank: of the training pictures from which strangeness is measured.
        bank_labels: their class numbers, (m,).
        bank_units: of them, (m,).
        val: of the validation pictures.
        val_units: of them, (n,).
        test: of the test pictures.
        generated: of pictures that show nothing, by kind.
    """

    plan: FeaturePlan
    bank: Floats
    bank_labels: Ints
    bank_units: Ints
    val: Floats
    val_units: Ints
    test: Floats
    generated: Mapping[str, Floats]


class _LogitsBesideFeatures(ClassifierWithFeatures):
    """Normalized pictures -> logits, then features, in one tensor (n, labels + f)."""

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat(self.logits_and_features(pictures), 1)


def run_with_features(
    network: Classifier, spec: ModelSpec, splits: Mapping[Split, Manifest], params: Params, root: Path
) -> tuple[SplitLogits, ModelFeatures]:
    """Logits of val and test, and the features by which strangeness is measured, in one pass."""
    plan = plan_features(network, spec.input.size)
    outputs = fp32_pixel_outputs(_LogitsBesideFeatures(network, plan), spec, params)
    count = len(spec.labels)

    def run(manifest: Manifest) -> Tensor:
        return outputs(load_pixels(manifest.images, root, spec.input, "decode"))

    val, test = run(splits["val"]), run(splits["test"])
    labels = classifier.encode_targets(splits["train"].images, spec.labels).numpy()
    picked = pick_for_bank(labels, params.seed)
    images = [splits["train"].images[number] for number in picked]
    features = ModelFeatures(
        plan=plan,
        bank=to_numpy(run(splits["train"].subset(images))[:, count:]),
        bank_labels=labels[picked],
        bank_units=unit_numbers(images),
        val=to_numpy(val[:, count:]),
        val_units=unit_numbers(splits["val"].images),
        test=to_numpy(test[:, count:]),
        generated={
            kind: to_numpy(outputs(pixels)[:, count:])
            for kind, pixels in foreign_pictures(spec.input.shape[0], PER_KIND, params.seed).items()
        },
    )
    return split_logits(val[:, :count], test[:, :count], spec, splits), features


def split_logits(val: Tensor, test: Tensor, spec: ModelSpec, splits: Mapping[Split, Manifest]) -> SplitLogits:
    """Logits of val and test with the pictures' class numbers."""
    return SplitLogits(
        val=to_numpy(val),
        val_labels=classifier.encode_targets(splits["val"].images, spec.labels).numpy(),
        test=to_numpy(test),
        test_labels=classifier.encode_targets(splits["test"].images, spec.labels).numpy(),
    )


def to_numpy(tensor: Tensor) -> Floats:
    """A tensor as an array of float64."""
    array: Floats = tensor.detach().double().numpy()
    return array
