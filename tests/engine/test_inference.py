"""Pixels are normalized, run in whole batches, and outputs come back in order."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny
from headstart.engine.cpu.fuse_convolutions import _FusedConv2d
from headstart.engine.device import Compute
from headstart.engine.inference import (
    INFERENCE_BATCH,
    normalize_images,
    prepare_for_inference,
    run_inference,
    run_inference_on_rows,
    to_float_tensor,
)
from headstart.engine.input_spec import InputSpec
from headstart.models.backbone import create_backbone
from headstart.models.classifier import Classifier

CPU = Compute(torch.device("cpu"))
SPEC = InputSpec(
    size=8, resize="squash", interpolation="bicubic", crop=1.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125)
)
COUNTS = (1, INFERENCE_BATCH - 1, INFERENCE_BATCH, INFERENCE_BATCH + 1, 2 * INFERENCE_BATCH)


class WholeBatches(nn.Module):
    """A function of each picture that fails on a batch of another size."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        assert len(inputs) == INFERENCE_BATCH
        return self.function(inputs)


def test_bytes_become_floats_channels_first_in_memory_channels_last() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    floats = to_float_tensor(pixels, CPU.device)
    assert floats.shape == (2, 3, 4, 4)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(floats[1, 2], torch.from_numpy(pixels[1, :, :, 2].astype(np.float32)) / 255)
    assert to_float_tensor(np.full((1, 1, 1, 3), 255, np.uint8), CPU.device).eq(1).all()


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    normalized = normalize_images(torch.full((1, 3, 2, 2), 0.6), SPEC)
    torch.testing.assert_close(normalized[0, :, 0, 0], torch.tensor([1.0, 1.6, 2.4]))
    assert normalized.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("count", COUNTS)
def test_outputs_are_in_order_and_without_the_padding(count: int) -> None:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    outputs = run_inference(WholeBatches(lambda pictures: pictures.mean((2, 3))), pixels, SPEC, CPU)
    expected = (pixels.mean((1, 2)) / 255 - np.array(SPEC.mean)) / np.array(SPEC.std)
    assert outputs.dtype == torch.float32
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", COUNTS)
def test_outputs_of_cached_rows_too(count: int) -> None:
    rows = list(torch.randn(count, 5, generator=torch.Generator().manual_seed(count)))
    outputs = run_inference_on_rows(WholeBatches(lambda inputs: 2 * inputs), rows, CPU)
    assert torch.equal(outputs, 2 * torch.stack(rows))


def test_outputs_have_no_gradient_and_are_floats_in_bf16_too() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    outputs = run_inference(network, pixels, SPEC, Compute(torch.device("cpu"), torch.bfloat16))
    assert (outputs.dtype, outputs.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(outputs, run_inference(network, pixels, SPEC, CPU), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("cpu_kernels", [True, False])
def test_a_network_prepared_for_inference_computes_the_same(cpu_kernels: bool) -> None:
    torch.manual_seed(0)
    network = Classifier(create_backbone(tiny.TRUNK), nn.Linear(256, 2)).eval()
    pictures = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network(pictures)
        compute = Compute(torch.device("cpu"), cpu_kernels=cpu_kernels)
        prepared = prepare_for_inference(network, 32, compute, batch=3)
        torch.testing.assert_close(prepared(pictures), expected, atol=1e-4, rtol=1e-3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.modules()), "they are folded"
    assert any(isinstance(module, _FusedConv2d) for module in prepared.modules()) == cpu_kernels
    assert cpu_kernels or prepared is network
