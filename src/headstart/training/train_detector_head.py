"""Head training of a detector: feature pyramid and head on cached feature maps of the frozen backbone."""

from pathlib import Path

import torch

from headstart.base.files import write_json
from headstart.base.manifest import read_manifest
from headstart.engine.device import configure_torch
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.models import detector
from headstart.models.backbone import create_backbone
from headstart.models.file import save_model_file, strip_prefix
from headstart.models.pretrained import check_image_size, load_pretrained
from headstart.models.torchvision_detectors import coco_predictor, shared_labels
from headstart.params.root import TORCHVISION_DETECTORS, Params
from headstart.training import detector_batches
from headstart.training.loop import TrainLoop, train_loop
from headstart.training.train_unfrozen import TrainingPlan, train_unfrozen


def train_detector_head(params: Params, root: Path, loop: TrainLoop | None = None) -> None:
    """Write stages/train-head: pyramid and head trained on the frozen backbone, history.csv, metrics.json.

    Args:
        params: all of params.yaml.
        root: the repository root.
        loop: the training loop; None: `train_loop`.

    Raises:
        UserError: a stage before this one has not run, the backbone does not take the picture size, or the loss
            diverges.
    """
    compute = configure_torch(params.train, params.seed)
    labels = read_manifest(root / "stages/augment/train.json").labels()
    spec, pretrained = load_pretrained("detect", params.model, labels, root)
    if spec.backbone:
        check_image_size(create_backbone(spec.backbone), spec)
    if spec.detector in TORCHVISION_DETECTORS and coco_predictor(spec.detector, pretrained):
        kept = ", ".join(shared_labels(spec.detector, labels)) or "none of the labels"
        print(f"train-head: the classifier begins with what COCO taught it about {kept}", flush=True)
    torch.manual_seed(params.seed)
    network = detector.build_from_pretrained(pretrained, spec)
    blocks, unused_parameters = detector.blocks_and_unused_parameters(network)
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    backbone = FrozenBackbone.of(lambda: network.trunk, strip_prefix("trunk.", tensors), spec, compute, root)
    trained = train_unfrozen(
        network,
        tensors,
        TrainingPlan(blocks, len(blocks), unused_parameters),
        lambda _: detector_batches.make_cached(network, params, spec, backbone),
        section=params.train_head.for_loop(),
        spec=spec,
        compute=compute,
        seed=params.seed,
        root=root,
        stage="train-head",
        loop=loop or train_loop,
    )
    out = root / "stages/train-head"
    save_model_file(out / "model.safetensors", trained.tensors, spec)
    write_json(out / "metrics.json", trained.best.to_metrics())
    trained.checkpoints.mark_finished()
