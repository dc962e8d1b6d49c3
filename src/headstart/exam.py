"""The evaluate stage: both models sit the same exam, and what the report says besides."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from headstart import checkpoint, classify, coco, modelfile, pixels, source_bias
from headstart.batches import VAL_BATCH, outputs
from headstart.calibration import Floats, Logits
from headstart.coco import Image, Manifest
from headstart.compute import prepare, trial_pictures
from headstart.detections import Detection, Found
from headstart.embed import Trunk, embeddings
from headstart.evaluate import Exam, write_evaluation
from headstart.files import read_json
from headstart.fold import fold
from headstart.fuse import fuse
from headstart.modelfile import Card
from headstart.params import Params, TrainParams
from headstart.report import ReportFacts, Table
from headstart.source_bias import LabelSources
from headstart.weights import UNTRAINED

# No commit's hash: DVC's outs are the same bytes for the same params and code, whatever else was committed.
COMMANDS = (
    "git clone <this repository> && cd <its folder>",
    "git checkout <its commit>",
    "cp <its params.yaml> params.yaml",
    "make repro",
)


def evaluate(params: Params, root: Path) -> None:
    """Write stages/evaluate: metrics.json, predictions.json, plots/, gallery/, report.html."""
    parts = {name: coco.read(root / f"stages/split/{name}.json") for name in ("train", "val", "test")}
    if params.task == "detect":
        _detector(parts, params, root)
    else:
        _classifier(parts, params, root)
    checkpoint.sweep(root, "fine-tune")


def _classifier(parts: Mapping[str, Manifest], params: Params, root: Path) -> None:
    tensors, card = modelfile.read(root / "stages/fine-tune/model.safetensors")
    exam = Exam(root, parts["test"].images, card.labels)
    head_only, sources = _head_only(parts, params, root)
    evaluation = write_evaluation(
        root / "stages/evaluate",
        exam=exam,
        head_only=head_only,
        fine_tuned=_fine_tuned(tensors, card, parts, params, root),
        params=params.evaluate,
        seed=params.seed,
        histories=_histories(root),
        facts=_facts(params, card, parts, sources, root),
        sources=sources,
    )
    accuracy = evaluation.fine_tuned.accuracy
    print(
        f"evaluate: test accuracy {accuracy.value:.4f} (95 % interval {accuracy.low:.4f} to {accuracy.high:.4f}) "
        f"on {len(exam.images)} pictures; stages/evaluate/report.html"
    )


def _histories(root: Path) -> dict[str, Path]:
    return {name: root / f"stages/{name}/history.csv" for name in ("train-head", "fine-tune")}


def _detector(parts: Mapping[str, Manifest], params: Params, root: Path) -> None:
    from headstart.box_evaluate import BoxExam, write_box_evaluation  # a classifier's exam wants none of a detector's

    _, card = modelfile.read(root / "stages/fine-tune/model.safetensors")
    evaluation = write_box_evaluation(
        root / "stages/evaluate",
        exam=BoxExam(root, parts["val"], parts["test"]),
        head_only=_found("train-head", parts, params, root),
        fine_tuned=_found("fine-tune", parts, params, root),
        params=params.evaluate,
        seed=params.seed,
        histories=_histories(root),
        facts=_facts(params, card, parts, (), root),
    )
    shown = {name: evaluation.fine_tuned.figures[name].value for name in ("AP50", "AP")}
    told = ", ".join(f"{name} {'none' if value is None else f'{value:.4f}'}" for name, value in shown.items())
    print(f"evaluate: test {told} on {len(parts['test'].images)} pictures; stages/evaluate/report.html")


def _found(stage: str, parts: Mapping[str, Manifest], params: Params, root: Path) -> Found:
    """What a detector finds in val and test; in fp32, because that is what export ships."""
    from headstart import detect

    tensors, card = modelfile.read(root / f"stages/{stage}/model.safetensors")
    compute = prepare(TrainParams(precision="fp32"), params.seed)
    network = detect.build(tensors, card)
    network.trunk, _ = fold(network.trunk, card.input.size)
    quick = fuse(compute.place(network), compute, trial_pictures(card.input.size, VAL_BATCH))

    def found(name: str) -> list[Detection]:
        seen = pixels.load(parts[name].images, root, card.input, "decode")
        return detect.detections(network, outputs(quick, seen, card.input, compute, VAL_BATCH), parts[name], card)

    return Found(val=found("val"), test=found("test"))


def _head_only(parts: Mapping[str, Manifest], params: Params, root: Path) -> tuple[Logits, tuple[LabelSources, ...]]:
    """The head on the pretrained trunk, and how well sources show in what the trunk sees.

    Embeddings of train and val are in the cache, those of test join them.
    """
    compute = prepare(params.train, params.seed)
    tensors, card = modelfile.read(root / "stages/train-head/model.safetensors")
    network = classify.build(tensors, card)
    digest = modelfile.digest(modelfile.under("trunk.", tensors))
    trunk = Trunk(lambda: network.trunk, digest, card.input, compute, root, card.backbone)

    def features(images: Sequence[Image]) -> Tensor:
        return embeddings(images, trunk)

    val, test = (_array(network.head.cpu()(features(parts[name].images))) for name in ("val", "test"))
    return _logits(parts, card, val, test), _sources(parts, features, params)


def _sources(
    parts: Mapping[str, Manifest], features: Callable[[Sequence[Image]], Tensor], params: Params
) -> tuple[LabelSources, ...]:
    """How well sources can be told apart; of identical pictures the first counts."""
    images = list({image.sha256: image for image in (*parts["train"].images, *parts["val"].images)}.values())
    sources = [source_bias.collection(image.source) for image in images]
    if len(set(sources)) < 2:
        return ()
    return source_bias.source_figures(
        _array(features(images)),
        [image.label or "" for image in images],
        sources,
        [image.group for image in images],
        tested={(image.label or "", source_bias.collection(image.source)) for image in parts["test"].images},
        resamples=params.evaluate.bootstrap,
        seed=params.seed,
    )


def _fine_tuned(
    tensors: dict[str, Any], card: Card, parts: Mapping[str, Manifest], params: Params, root: Path
) -> Logits:
    """In fp32, because that is what export ships: the figures are those of the exported model."""
    compute = prepare(TrainParams(precision="fp32"), params.seed)
    network = classify.build(tensors, card)
    network.trunk, _ = fold(network.trunk, card.input.size)
    quick = fuse(compute.place(network), compute, trial_pictures(card.input.size))

    def logits(name: str) -> Floats:
        seen = pixels.load(parts[name].images, root, card.input, "decode")
        return _array(outputs(quick, seen, card.input, compute))

    return _logits(parts, card, logits("val"), logits("test"))


def _logits(parts: Mapping[str, Manifest], card: Card, val: Floats, test: Floats) -> Logits:
    labels = {name: classify.targets(parts[name].images, card.labels).numpy() for name in ("val", "test")}
    return Logits(val=val, val_labels=labels["val"], test=test, test_labels=labels["test"])


def _array(tensor: Any) -> Floats:
    array: Floats = tensor.detach().double().numpy()
    return array


def _facts(
    params: Params, card: Card, parts: Mapping[str, Manifest], sources: Sequence[LabelSources], root: Path
) -> ReportFacts:
    found, weights = read_json(root / "stages/split/metrics.json"), read_json(root / "stages/weights/weights.json")
    images = [image for part in parts.values() for image in part.images]
    blocks = read_json(root / "stages/fine-tune/blocks.json")
    return ReportFacts(
        title=f"{' or '.join(card.labels) if len(card.labels) <= 3 else f'{len(card.labels)} labels'}: the report",
        settings={
            "network" if card.detector and not card.backbone else "backbone": f"{weights['name']}, "
            f"{weights['parameters']:,} parameters",
            "pretrained weights": f"{weights['source']}, licence {weights['license']}",
            "picture size": f"{card.input.size} px ({card.input.resize})",
            "frozen": f"{sum(b['state'] == 'frozen' for b in blocks)} of {len(blocks) - 1} blocks while fine-tuning",
            **_above(card),
            "stored copies": f"{params.augment.copies} of each training picture",
            "train-head": f"at most {params.train_head.most_epochs()} epochs, rate {params.train_head.lr:g}",
            "fine-tune": f"at most {params.fine_tune.most_epochs()} epochs, rate {params.fine_tune.lr:g}, "
            f"layer decay {params.fine_tune.layer_decay:g}",
            "seed": str(params.seed),
        },
        counts={name: _counts(part, card) for name, part in parts.items()},
        sources=Counter(image.source for image in images),
        licenses=Counter(image.license or "not stated" for image in images),
        duplicates={
            "identical to another picture": found["identical_pictures"],
            "near-duplicate pairs, each kept in one split": found["near_duplicate_pairs"],
            "left out, since a later split has the same picture": found["dropped"],
        },
        frozen=Table(
            caption="What was frozen",
            header=("block", "name", "parameters", "while fine-tuning"),
            rows=tuple((row["block"], row["name"], row["parameters"], row["state"]) for row in blocks),
        ),
        commands=COMMANDS,
        notes=(*_seen_before(parts, weights["source"]), *_coincide(sources)),
    )


def _above(card: Card) -> dict[str, str]:
    """What stands on the trunk."""
    if card.detector and not card.backbone:
        return {"detector": f"torchvision's {card.detector}, with a new predictor"}
    if card.detector:
        return {"detector": f"{card.detector} on a feature pyramid of {card.pyramid} channels"}
    return {"head": f"hidden layers {list(card.head.hidden) or 'none'}, dropout {card.head.dropout:g}"}


def _counts(part: Manifest, card: Card) -> dict[str, int]:
    """Pictures of each label, or a detector's boxes, crowds aside."""
    if not card.detector:
        return {label: sum(image.label == label for image in part.images) for label in card.labels}
    boxes = Counter(box.category_id for box in part.annotations if not box.iscrowd)
    return {category.name: boxes[category.id] for category in part.categories}


def _seen_before(parts: Mapping[str, Manifest], weights: str) -> list[str]:
    dogs = {name: sum(image.source == "stanford_dogs" for image in part.images) for name, part in parts.items()}
    if weights == UNTRAINED or not any(dogs.values()):
        return []
    return [
        f"{sum(dogs.values()):,} of the pictures, {dogs['test']:,} of them in the test, are of Stanford Dogs, and "
        f"those are of ImageNet. A backbone pretrained on it (here: {weights}) may have seen them and been told "
        "their breeds: for them the figures flatter."
    ]


def _coincide(sources: Sequence[LabelSources]) -> list[str]:
    alone = [f"“{one.label}” only from {next(iter(one.sources))}" for one in sources if one.coincide]
    if not alone:
        return []
    more = f" (and {len(alone) - 3} more labels likewise)" if len(alone) > 3 else ""
    return [
        f"Label and source coincide: {', '.join(alone[:3])}{more}. A model that tells camera or style instead of the "
        "label would answer the same pictures right; no figure here can tell the label from its source."
    ]
