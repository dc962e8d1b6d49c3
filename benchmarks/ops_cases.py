"""What ops.py measures: for each piece a step with it, one without, and the libraries' own ways."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ops_steps as steps
import torch
from ops_steps import LEAVE_MEMORY, RATE, SIZES, Child, Step, inference, timed, training
from torch import Tensor, nn

Steps = dict[str, Step]
ALLOCATOR = "BENCHMARK_ALLOCATOR"  # in the environment: the path of one
LEFT = {LEAVE_MEMORY: "1"}
KEEPS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}


def case_fuse() -> Steps:
    """Inference of the frozen network; without: its batch norms folded, under autocast."""
    from torch.fx.experimental.optimization import fuse as fx_fuse

    size, frozen = SIZES["classify"][0], {"freezing": True}
    plain = steps.prepared().to_device(steps.backbone(size)).requires_grad_(False)
    folded = steps.prepared().to_device(steps.fold(plain, size)).requires_grad_(False)
    by_fx = fx_fuse(steps.trace(plain), no_trace=True)  # it cannot trace timm's padding itself
    left = sum(isinstance(module, nn.BatchNorm2d) for module in by_fx.modules())
    ways: dict[str, Any] = {
        "with": steps.fuse(folded, steps.noise("classify")[:2]),
        "without": folded,
        "batch norms, autocast": plain,
        f"torch.fx fuse, {left} batch norms left": by_fx,
        "torch.compile freezing": torch.compile(plain, options=frozen),  # type: ignore[arg-type]
        "torch.compile freezing, folded": torch.compile(folded, options=frozen),  # type: ignore[arg-type]
    }
    return {name: inference(network) for name, network in ways.items()}


def case_fold() -> Steps:
    """A classifier's training step; without: batch norms in eval mode."""
    from timm.layers.norm_act import freeze_batch_norm_2d
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    def timm_frozen(network: Any) -> None:
        network.trunk = freeze_batch_norm_2d(network.trunk)  # type: ignore[no-untyped-call]

    def torch_fused(network: Any) -> None:
        for parent in list(network.trunk.modules()):
            for (name, conv), (after, norm) in itertools.pairwise(list(parent.named_children())):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                    setattr(parent, after, norm.act)

    return {
        "with": training("classify")[0],
        "without": training("classify", "fold")[0],
        "timm freeze_batch_norm_2d": training("classify", "fold", timm_frozen)[0],
        "torch fuse_conv_bn_eval": training("classify", "fold", torch_fused)[0],
    }


def case_depthwise() -> Steps:
    """A classifier's training step."""

    def wide(conv: nn.Conv2d) -> None:
        inner = conv.forward

        def forward(x: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return inner(x.float())

        conv.forward = forward  # type: ignore[assignment]

    def all_wide(network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                wide(module)

    return {
        "with": training("classify")[0],
        "without": training("classify", "depthwise")[0],
        "torch, depthwise in fp32": training("classify", "depthwise", all_wide)[0],
        "torch, all in fp32": training("classify", "depthwise", bf16=False)[0],
    }


def case_roi_align() -> Steps:
    """A training step of Faster R-CNN; without: torchvision's MultiScaleRoIAlign, the library's way."""
    from torchvision.ops import MultiScaleRoIAlign

    size, _ = SIZES["detect"]
    names = ["0", "1", "2"]
    align = MultiScaleRoIAlign(names, 7, 2)

    def theirs(maps: list[Tensor], boxes: Tensor, strides: Sequence[int]) -> Tensor:
        found: Tensor = align(dict(zip(names, maps, strict=False)), list(boxes), [(size, size)] * len(boxes))
        return found

    def aligning(align_: Callable[..., Tensor] | None) -> Step:
        step, _ = training("fasterrcnn")

        def run() -> float:
            steps.align_by(align_)
            return step()

        return run

    return {"with": aligning(None), "without": aligning(theirs)}


class Torchs:
    """torch.optim.AdamW with the interface of ours."""

    def __init__(self, groups: list[Any], **how: Any) -> None:
        self.groups = groups
        own = [{"params": g.parameters, "weight_decay": 0.05 if g.weight_decay is None else 0.0} for g in groups]
        self.inner = torch.optim.AdamW(own, **how)

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self, rate: float) -> None:
        for group, own in zip(self.inner.param_groups, self.groups, strict=True):
            group["lr"] = rate * own.lr_scale
        self.inner.step()


OPTIMIZERS: dict[str, Callable[[list[Any]], Any]] = {
    "with": steps.adamw,
    "without": Torchs,
    "torch foreach": lambda groups: Torchs(groups, foreach=True),
    "torch fused": lambda groups: Torchs(groups, fused=True),
}


def optimized(make: Callable[[list[Any]], Any]) -> tuple[Step, Any]:
    """A classifier's training step with this optimizer, and its TrainingState."""
    step, run = training("classify")
    run._optimizer = make(run._optimizer.groups)
    return step, run


def case_adamw() -> Steps:
    """A classifier's training step; without: torch.optim.AdamW as it comes, which on a CPU loops over parameters."""
    return {name: optimized(make)[0] for name, make in OPTIMIZERS.items() if "foreach" not in name}


def case_adamw_alone() -> Steps:
    """The optimizer's step alone."""
    runs = {name: optimized(make) for name, make in OPTIMIZERS.items()}
    for step, _ in runs.values():
        step()  # there are gradients from here on
    return {name: timed(functools.partial(run._optimizer.step, RATE)) for name, (_, run) in runs.items()}


def case_adamw_first() -> Steps:
    """The first optimizer and its first step in a process, where torch's imports torch's compiler."""

    def first(name: str) -> float:
        child = Child(name)
        took = child()
        child.close()
        return took

    return {name: functools.partial(first, name) for name in OPTIMIZERS}


def case_keep_memory() -> Steps:
    """A classifier's training step, each in a process of its own; without: glibc's malloc as it is."""
    found = {"with": Child("step"), "without": Child("step", LEFT), "MALLOC_*_ variables": Child("step", LEFT | KEEPS)}
    if library := os.environ.get(ALLOCATOR):
        found[Path(library).name] = Child("step", LEFT | {"LD_PRELOAD": library})
    return {**found}


CASES: dict[str, Callable[[], Steps]] = {
    name.removeprefix("case_"): case for name, case in list(globals().items()) if name.startswith("case_")
}
