"""Logits of both classifiers on val and test, and how well sources can be predicted from the backbone's features."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from headstart.base.arrays import Floats
from headstart.base.manifest import Image, Manifest, Split
from headstart.engine.device import configure_torch
from headstart.evaluation.network_outputs import fp32_outputs
from headstart.features.embeddings import FrozenBackbone, compute_embeddings
from headstart.metrics.calibration import SplitLogits
from headstart.metrics.source_bias import LabelSources, measure_source_bias, source_collection
from headstart.models import classifier
from headstart.models.classifier import Classifier
from headstart.models.file import ModelSpec, read_model_file, strip_prefix
from headstart.params.root import Params

Embed = Callable[[Sequence[Image]], Tensor]  # pictures -> features (n, features) of the pretrained backbone


def load_head_only(params: Params, root: Path) -> tuple[Classifier, ModelSpec, Embed]:
    """The model of train-head, its spec, and its frozen backbone as a function.

    Features of train and val are in the cache already, those of test are added to it.
    """
    compute = configure_torch(params.train, params.seed)
    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    network = classifier.build(tensors, spec)
    backbone = FrozenBackbone.of(lambda: network.trunk, strip_prefix("trunk.", tensors), spec, compute, root)
    return network, spec, lambda images: compute_embeddings(images, backbone)


def head_only_logits(
    network: Classifier, spec: ModelSpec, embed: Embed, splits: Mapping[Split, Manifest]
) -> SplitLogits:
    """The head on cached features, in the precision of `train.precision`, as it was trained."""
    head = network.head.cpu()
    return _split_logits(lambda manifest: head(embed(manifest.images)), spec, splits)


def fine_tuned_logits(
    tensors: dict[str, Tensor], spec: ModelSpec, splits: Mapping[Split, Manifest], params: Params, root: Path
) -> SplitLogits:
    """The whole fine-tuned network, in fp32."""
    return _split_logits(fp32_outputs(classifier.build(tensors, spec), spec, params, root), spec, splits)


def source_bias(embed: Embed, splits: Mapping[Split, Manifest], params: Params) -> tuple[LabelSources, ...]:
    """How well sources can be predicted from the training and validation pictures, each distinct picture once."""
    images = list({image.sha256: image for image in (*splits["train"].images, *splits["val"].images)}.values())
    sources = [source_collection(image.source) for image in images]
    if len(set(sources)) < 2:
        return ()
    return measure_source_bias(
        _to_numpy(embed(images)),
        [image.label or "" for image in images],
        sources,
        [image.group for image in images],
        tested={(image.label or "", source_collection(image.source)) for image in splits["test"].images},
        resamples=params.evaluate.bootstrap,
        seed=params.seed,
    )


def _split_logits(
    logits: Callable[[Manifest], Tensor], spec: ModelSpec, splits: Mapping[Split, Manifest]
) -> SplitLogits:
    val, test = splits["val"], splits["test"]
    return SplitLogits(
        val=_to_numpy(logits(val)),
        val_labels=classifier.encode_targets(val.images, spec.labels).numpy(),
        test=_to_numpy(logits(test)),
        test_labels=classifier.encode_targets(test.images, spec.labels).numpy(),
    )


def _to_numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().double().numpy()
    return array
