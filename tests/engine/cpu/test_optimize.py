"""CPU kernels behind one switch: on, a network has them; off, or on another device, it comes back as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from headstart.engine.cpu.fuse_convolutions import _FusedConv2d
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.engine.equivalence import example_input

CPU = torch.device("cpu")
KERNELS = {"_FastDepthwiseConv2d"}


class Network(nn.Module):
    """A backbone and a head, both with a depthwise convolution, ReLU6 and group norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3), *self.layers())
        self.head = nn.Sequential(*self.layers(), nn.Flatten(), nn.LazyLinear(2))
        self(example_input(16))

    def layers(self) -> list[nn.Module]:
        return [nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.GroupNorm(2, 8), nn.ReLU6(inplace=True)]

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pictures))
        return logits


def kinds(network: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in network.modules()]


def ours(network: nn.Module) -> set[str]:
    """Names of the classes in a network that this package defines."""
    return {kind.__name__ for kind in kinds(network) if kind.__module__.startswith("headstart.")}


def untouched(network: nn.Module, compute: Compute) -> bool:
    before = kinds(network)
    same = all(
        optimize(network, compute, example_input(16), training=training) is network for training in (True, False)
    )
    return same and kinds(network) == before and not ours(network)


@pytest.mark.parametrize("bf16", [False, True])
def test_off_gives_the_network_itself_without_a_module_of_ours(bf16: bool) -> None:
    assert untouched(Network(), Compute(CPU, torch.bfloat16 if bf16 else torch.float32, cpu_kernels=False))


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("cpu_kernels", [False, True])
def test_another_device_gives_the_network_itself(device: str, cpu_kernels: bool) -> None:
    assert untouched(Network(), Compute(torch.device(device), cpu_kernels=cpu_kernels))


def test_for_training_the_backbones_depthwise_convolutions() -> None:
    network = Network()
    names = list(network.state_dict())
    assert optimize(network, Compute(CPU, torch.bfloat16), training=True) is network
    assert ours(network.trunk) == KERNELS
    assert not ours(network.head)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("bf16", [False, True])
def test_training_computes_the_same(bf16: bool) -> None:
    plain, fast = Network(), Network()
    optimize(fast, Compute(CPU, torch.bfloat16 if bf16 else torch.float32), training=True)
    found = []
    for network in (plain, fast):
        with Compute(CPU, torch.bfloat16 if bf16 else torch.float32).autocast():
            logits = network(example_input(16, 4))
        torch.autograd.backward(nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 1, 0])))
        found.append([logits.detach().float(), *(p.grad for p in network.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) == 1 + len(list(plain.parameters()))
    for one, other in zip(*found, strict=True):
        scale = float(one.abs().max())
        torch.testing.assert_close(other, one, atol=(0.05 if bf16 else 1e-5) * scale + 1e-7, rtol=0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")  # type: ignore[no-untyped-call]
def test_for_inference_a_copy_with_fused_convolutions() -> None:
    network = Network().eval()
    before = kinds(network)
    fused = optimize(network, Compute(CPU), example_input(16), training=False)
    assert fused is not network
    assert sum(isinstance(module, _FusedConv2d) for module in fused.modules()) == 3
    assert kinds(network) == before
    pictures = example_input(16, 5)
    with torch.no_grad():
        torch.testing.assert_close(fused(pictures), network(pictures), atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")  # type: ignore[no-untyped-call]
def test_a_network_with_the_kernels_for_training_can_be_fused_for_inference() -> None:
    """timm's padding `same` included, which the depthwise kernel then computes itself."""
    from timm.layers.conv2d_same import Conv2dSame

    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), Conv2dSame(8, 8, 5, stride=2, groups=8), nn.ReLU6(inplace=True)]
    network = nn.ModuleDict({"trunk": nn.Sequential(*layers)}).eval()
    backbone, compute = network["trunk"], Compute(CPU)
    plain = copy.deepcopy(backbone)
    optimize(network, compute, training=True)
    fused = optimize(backbone, compute, example_input(16), training=False)
    assert sum(isinstance(module, _FusedConv2d) for module in fused.modules()) == 2
    with torch.no_grad():
        torch.testing.assert_close(fused(example_input(16)), plain(example_input(16)), atol=1e-5, rtol=1e-4)
