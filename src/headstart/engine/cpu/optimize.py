"""All CPU kernels of this package behind one function and one switch, `train.cpu_kernels`."""

from torch import Tensor, nn

from headstart.engine.cpu.depthwise import use_fast_depthwise
from headstart.engine.cpu.fuse_convolutions import fuse_convolutions
from headstart.engine.device import Compute


def optimize(network: nn.Module, compute: Compute, *example: Tensor, training: bool) -> nn.Module:
    """The same function by faster CPU kernels; the network itself on a GPU, or with `train.cpu_kernels: false`.

    Args:
        network: for training, the backbone as its `trunk` and whatever stands on it; for inference any network in
            eval mode, its batch norms folded, on the device.
        compute: device, precision, and the switch.
        example: for inference, inputs of the network in fp32, by which the fused copy is checked.
        training: True changes layers in place; False returns a copy with fused convolutions, or the network itself
            where it cannot be traced or the copy computes something else.
    """
    if compute.device.type != "cpu" or not compute.cpu_kernels:
        return network
    if not training:
        return fuse_convolutions(network, compute, *example)
    use_fast_depthwise(network.get_submodule("trunk"))  # heads keep torch's kernels, whose rounding differs
    return network
