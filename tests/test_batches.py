"""Pixels become what the network has seen, and whole batches come out in order."""

import numpy as np
import torch
from torch import Tensor, nn

from headstart.batches import BATCH, floats, normalise, outputs
from headstart.compute import Compute
from headstart.pixels import Input

CPU = Compute(torch.device("cpu"), bf16=False)
WANTED = Input(size=8, resize="squash", interpolation="bicubic", crop=1.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))


class Mean(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        assert len(pictures) == BATCH
        return pictures.mean((2, 3))


def test_bytes_become_floats_channels_first_in_memory_channels_last() -> None:
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    found = floats(pixels, CPU.device)
    assert found.shape == (2, 3, 4, 4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found[1, 2], torch.from_numpy(pixels[1, :, :, 2].astype(np.float32)) / 255)
    assert floats(np.full((1, 1, 1, 3), 255, np.uint8), CPU.device).eq(1).all()


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    found = normalise(torch.full((1, 3, 2, 2), 0.6), WANTED)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.0, 1.6, 2.4]))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_outputs_are_in_order_and_without_the_padding() -> None:
    for count in (1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        found = outputs(Mean(), pixels, WANTED, CPU)
        wanted = (pixels.mean((1, 2)) / 255 - np.array(WANTED.mean)) / np.array(WANTED.std)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_outputs_have_no_gradient_and_are_floats_in_bf16_too() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    found = outputs(network, pixels, WANTED, Compute(torch.device("cpu"), bf16=True))
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    torch.testing.assert_close(found, outputs(network, pixels, WANTED, CPU), atol=0.05, rtol=0.02)
