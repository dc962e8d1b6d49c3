"""The pieces that ops.py takes out of a step, and the whole steps that it takes them out of."""

import copy
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[], float]  # runs once; milliseconds
Change = Callable[[Any], object]  # made to a network in place, once its batch norms are folded
BACKBONE, FEATURES, RATE = "tf_efficientnet_lite0", 1280, 1e-5
SIZES = {"classify": (224, 32), "detect": (320, 4)}  # pixels, pictures
CPU_TIME, LEAVE_MEMORY = "BENCHMARK_CPU_TIME", "BENCHMARK_LEAVE_MEMORY"  # what is set in the environment
SMALL = {"classify": (64, 8), "detect": (128, 2)}


# --- the pieces: each one's import stands here alone


def fuse(network: nn.Module, example: Tensor) -> nn.Module:
    """Convolution, bias and activation in one pass."""
    from headstart.engine.cpu.fuse_convolutions import fuse_convolutions

    fused = fuse_convolutions(network, prepared(), example)
    assert fused is not network, "nothing was fused"
    return fused


def fold(network: nn.Module, size: int) -> nn.Module:
    """Batch norm folded into the convolution before it."""
    from headstart.engine.fold_batch_norm import fold_batch_norm

    folded, norms = fold_batch_norm(network, size)
    assert norms, "nothing was folded"
    return folded


def depthwise(network: nn.Module) -> None:
    """Faster gradients of depthwise convolutions."""
    from headstart.engine.cpu.depthwise import use_fast_depthwise

    use_fast_depthwise(network)


def align_by(align: Callable[..., Tensor] | None) -> None:
    """The RoIAlign of Faster R-CNN's head; None: ours."""
    from headstart.models.heads import fasterrcnn, roi_align

    fasterrcnn.multiscale_roi_align = align or roi_align.multiscale_roi_align  # type: ignore[attr-defined]


def trace(network: nn.Module) -> nn.Module:
    """The network as a graph of its layers."""
    from headstart.engine.trace import trace_layers

    return trace_layers(network)


def groups_of(parameters: list[nn.Parameter]) -> list[Any]:
    """An optimizer's parameter groups."""
    from headstart.training.optimizer import ParamGroup

    return [ParamGroup(parameters)]


def adamw(groups: list[Any]) -> Any:
    """The optimizer."""
    from headstart.training.optimizer import AdamW

    return AdamW(groups, 0.05)


@functools.cache
def prepared(bf16: bool = True) -> Any:
    """Device, precision (bf16 where the machine has it) and settings; LEAVE_MEMORY: malloc as it is."""
    from headstart.engine import device
    from headstart.params.training import TrainParams

    if LEAVE_MEMORY in os.environ:
        device.keep_freed_memory = lambda: False  # type: ignore[attr-defined]
    return device.configure_torch(TrainParams(precision="auto" if bf16 else "fp32"), seed=0)


# --- whole steps


def backbone(size: int) -> nn.Module:
    """A copy of the randomly initialized backbone, in eval mode."""
    return copy.deepcopy(_backbone(size))


@functools.cache
def _backbone(size: int) -> nn.Module:
    from headstart.models.backbone import create_backbone

    torch.manual_seed(0)
    network = create_backbone(BACKBONE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of all batches seen, which is one: activations neither grow nor vanish
    with torch.no_grad():
        network.train()(torch.randn(8, 3, size, size))
    return network.eval()


def noise(task: str) -> Tensor:
    """A batch as normalised pictures are laid out."""
    size, count = SIZES[task]
    return torch.randn(count, 3, size, size).contiguous(memory_format=torch.channels_last)


def timed(action: Callable[[], object]) -> Step:
    """The action with a clock."""

    def step() -> float:
        clock = time.process_time if CPU_TIME in os.environ else time.perf_counter
        begin = clock()
        action()
        return (clock() - begin) * 1000

    return step


def inference(network: nn.Module) -> Step:
    """A batch through a frozen network, as engine/inference.py runs it."""
    seen, compute = noise("classify"), prepared()

    @torch.no_grad()
    def run() -> Tensor:
        with compute.autocast():
            found: Tensor = network(seen)
        return found.float()

    return timed(run)


def detector_network(kind: str) -> tuple[Any, Any, Tensor]:
    """A detector, its module, and two boxes a picture."""
    from headstart.engine.input_spec import InputSpec
    from headstart.models import detector
    from headstart.models.file import ModelSpec
    from headstart.params.root import HeadParams

    size, count = SIZES["detect"]
    half = (0.5, 0.5, 0.5)
    spec = {"task": "detect", "backbone": BACKBONE, "features": FEATURES, "pyramid": 128, "detector": kind}
    spec["input"] = InputSpec(size=size, resize="squash", interpolation="bicubic", crop=1, mean=half, std=half)
    model = ModelSpec.model_validate({**spec, "labels": ("raccoon",), "head": HeadParams()})
    first, sides = (size * torch.rand(2, count, 2, 2) * 0.4).unbind()
    boxes = torch.cat([torch.zeros(count, 2, 1), first, first + sides + size * 0.2], -1)
    return detector.build_from_pretrained(_backbone(size).state_dict(), model), detector, boxes


def training(kind: str, without: str = "", change: Change | None = None, bf16: bool = True) -> tuple[Step, Any]:
    """A training step as train_unfrozen.py and loop.py take it, and its state. `kind`: classify, fcos or fasterrcnn."""
    from headstart.models import classifier
    from headstart.models.freeze import freeze_blocks, list_blocks, set_train_mode
    from headstart.params.root import HeadParams
    from headstart.params.training import TrainingStageParams
    from headstart.training.autocast import AutocastNetwork
    from headstart.training.loop_state import TrainingState
    from headstart.training.optimizer import param_groups_layer_decay

    compute = prepared(bf16)
    task = "classify" if kind == "classify" else "detect"
    size, count = SIZES[task]
    torch.manual_seed(0)
    network: Any
    inputs: Any = noise(task)
    if kind == "classify":
        network = classifier.Classifier(backbone(size), classifier.create_head(FEATURES, 2, HeadParams()))
        blocks, unused, depth = list_blocks(network.trunk), frozenset[str](), 0
        loss, targets = functools.partial(classifier.loss, weights=None, smoothing=0.1), torch.arange(count) % 2
    else:
        network, module, targets = detector_network(kind)
        (blocks, unused), depth = module.blocks_and_unused_parameters(network), 5
        loss, inputs = functools.partial(module.loss, network), (inputs, targets)
    if without != "fold":
        network.trunk = fold(network.trunk, size)
    if change:
        change(network)
    freeze_blocks(network.trunk, blocks, depth, unused)
    if without != "depthwise":
        depthwise(network.trunk)
    autocast = AutocastNetwork(compute.to_device(network), network.trunk, compute, "fixed")
    section = TrainingStageParams(epochs=1, lr=RATE, weight_decay=0.05, ema=0.98)
    state = TrainingState(autocast, param_groups_layer_decay(network, blocks, 0.9), section)
    set_train_mode(autocast)

    def step() -> None:
        value = loss(autocast(inputs), targets=targets)
        state.train_batch(value, RATE, 1 << 30, count)
        state.read_losses()

    return timed(step), state


class Child:
    """A step in a process of its own, as ops.py runs it for `--child`."""

    def __init__(self, what: str, environment: dict[str, str] | None = None) -> None:
        command = [
            sys.executable,
            str(Path(__file__).with_name("ops.py")),
            "--child",
            what,
            *(["--quick"] if SIZES == SMALL else []),
        ]
        own = os.environ | (environment or {})
        self.process = subprocess.Popen(command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> float:
        """Run it once; milliseconds."""
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
