"""First honest step of transfer learning: the trunk is frozen, the new head is fitted on its embeddings."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from headstart import classify, coco, modelfile, ranks, weights
from headstart.adamw import Group
from headstart.checkpoint import Checkpoints
from headstart.compute import prepare
from headstart.embed import Trunk, embeddings
from headstart.errors import UserError, missing_file
from headstart.files import read_json, write_json
from headstart.fit import Batch, Fit, fit
from headstart.fit_state import Scores
from headstart.modelfile import Card
from headstart.order import batches_of, steps_of
from headstart.params import ModelParams, Params
from headstart.pixels import Input


def train_head(params: Params, root: Path) -> None:
    """Write stages/train-head: the pretrained trunk with a trained head, history.csv, metrics.json.

    Of fine_tune it only looks at what to keep for it as the pictures pass; no result depends on that.
    """
    train_head_by(params, root, fit)


def train_head_by(params: Params, root: Path, fit: Fit) -> None:
    """The stage with another loop in the place of `fit`: the range test's, say."""
    if params.task == "detect":
        _detector(params, root, fit)
        return
    compute = prepare(params.train, params.seed)
    train, val = coco.read(root / "stages/augment/train.json"), coco.read(root / "stages/split/val.json")
    card, pretrained = _start("classify", params.model, train.labels(), root)

    def build() -> nn.Module:
        network = weights.trunk(card.backbone)
        network.load_state_dict(pretrained)
        _try_size(network, card)
        return network

    trunk = Trunk(build, modelfile.digest(pretrained), card.input, compute, root, card.backbone, params.train.cache_gb)
    depth = params.fine_tune.freeze_depth if params.fine_tune.cache_frozen else 0
    found = embeddings([*train.images, *val.images], trunk, depth)
    features, val_features = found[: len(train.images)], found[len(train.images) :]
    targets, val_targets = (classify.targets(part.images, card.labels) for part in (train, val))
    torch.set_num_threads(1)  # a step is too small to be worth dividing
    torch.manual_seed(params.seed)
    head = classify.make_head(card.features, len(card.labels), card.head)
    section = params.train_head
    balance = classify.class_weights(targets, len(card.labels), section)

    def rows_of(epoch: int) -> Sequence[Tensor]:
        return batches_of(epoch, len(features), targets, section, params.seed)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for rows in rows_of(epoch)[first:]:
            own = ranks.share(rows, "train-head")
            yield features[own], targets[own]

    @torch.no_grad()
    def validate() -> Scores:
        return classify.score(head(val_features), val_targets)

    facts = [[(image.sha256, image.label) for image in part.images] for part in (train, val)]
    checkpoints = Checkpoints.of(
        root, "train-head", trunk.sha256, compute.name(), params.seed, card.model_dump(), section.model_dump(), facts
    )
    print(f"train-head: {len(features)} embeddings of {card.features} features, {len(card.labels)} labels")
    best = fit(
        head,
        [Group(list(head.parameters()))],
        batches=batches,
        steps=steps_of(len(features), section.batch_size),
        loss=lambda logits, wanted: classify.loss(logits, wanted, balance, section.label_smoothing),
        validate=validate,
        params=section,
        history=root / "stages/train-head/history.csv",
        what="train-head",
        pictures=lambda epoch, batch: [train.images[row].file_name for row in rows_of(epoch)[batch]],
        checkpoints=checkpoints,
    )
    tensors = {f"trunk.{name}": tensor for name, tensor in pretrained.items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    modelfile.save(root / "stages/train-head/model.safetensors", tensors, card)
    write_json(root / "stages/train-head/metrics.json", best.row())
    checkpoints.done()


def _detector(params: Params, root: Path, fit: Fit) -> None:
    """The same for a detector: pyramid and head on the frozen trunk."""
    from headstart import box_lessons, detect  # seconds to import, and a classifier's edit wants none of them
    from headstart.tune import Plan, tune

    compute = prepare(params.train, params.seed)
    labels = coco.read(root / "stages/augment/train.json").labels()
    card, pretrained = _start("detect", params.model, labels, root)
    if card.backbone:
        _try_size(weights.trunk(card.backbone), card)
    torch.manual_seed(params.seed)
    network = detect.start(pretrained, card)
    blocks, idle = detect.blocks(network)
    out = root / "stages/train-head"
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    digest = modelfile.digest(modelfile.under("trunk.", tensors))
    trunk = Trunk(lambda: network.trunk, digest, card.input, compute, root, card.backbone or card.detector)
    tuned = tune(
        network,
        tensors,
        Plan(blocks, len(blocks), idle, compiled=params.train.compile),
        lambda _: box_lessons.stored(network, params, card, trunk),
        section=params.train_head,
        card=card,
        compute=compute,
        seed=params.seed,
        root=root,
        what="train-head",
        fit=fit,
    )
    modelfile.save(out / "model.safetensors", tuned.tensors, card)
    write_json(out / "metrics.json", tuned.best.row())
    tuned.checkpoints.done()


@torch.no_grad()
def _try_size(trunk: nn.Module, card: Card) -> None:
    """Many transformers take pictures of one size only, and some networks none that are very small."""
    size = card.input.size
    try:
        trunk.eval()(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError) as error:
        own = trunk.pretrained_cfg["input_size"][-1]  # type: ignore[index]
        raise UserError(
            f"params.yaml: model.image_size: {size}: {card.backbone} does not take pictures of that size "
            f"({str(error).partition(chr(10))[0]}); give its own, {own}, or another backbone"
        ) from None


def _start(task: str, model: ModelParams, labels: list[str], root: Path) -> tuple[Card, dict[str, Tensor]]:
    """The card of the model to be, and the pretrained trunk's tensors."""
    folder = root / "stages/weights"
    if not (folder / "weights.json").is_file():
        raise missing_file(folder / "weights.json", "run the stage that writes it: dvc repro weights")
    about = read_json(folder / "weights.json")
    wanted = Input(**{**about["input"], "size": model.image_size}, resize=model.resize)
    card = Card(
        task=task,
        backbone=model.backbone,
        labels=tuple(labels),
        features=about["features"],
        head=model.head,
        input=wanted,
        detector=model.detector,
        pyramid=model.pyramid if model.detector and model.backbone else 0,
    )
    return card, load_file(folder / "pretrained.safetensors")
