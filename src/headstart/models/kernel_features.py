"""RBF kernel features of a head, as plain matrix products and exponentials: they train through, and export to ONNX."""

import torch
from torch import Tensor, nn


class KernelFeatures(nn.Module):
    """Features (n, f) -> (n, r), whose inner products are the RBF kernel's (Nyström approximation).

    Williams and Seeger 2001. z = features @ projection + offset are scaled principal components, k = exp(-|z - l|^2)
    for each landmark l, and k @ whitening is the result. All four are buffers: fine-tuning leaves the kernel as it is.

    Attributes:
        projection: (f, c).
        offset: (c,).
        landmarks: (m, c).
        whitening: (m, r).
    """

    projection: Tensor
    offset: Tensor
    landmarks: Tensor
    whitening: Tensor

    def __init__(self, features: int, components: int, landmarks: int, width: int) -> None:
        super().__init__()
        self.register_buffer("projection", torch.zeros(features, components))
        self.register_buffer("offset", torch.zeros(components))
        self.register_buffer("landmarks", torch.zeros(landmarks, components))
        self.register_buffer("whitening", torch.zeros(landmarks, width))

    @classmethod
    def of(cls, projection: Tensor, offset: Tensor, landmarks: Tensor, whitening: Tensor) -> "KernelFeatures":
        """With these values, in fp32."""
        module = cls(*projection.shape, *whitening.shape)
        for name, value in (("projection", projection), ("offset", offset), ("landmarks", landmarks)):
            module.get_buffer(name).copy_(value)
        module.whitening.copy_(whitening)
        return module

    def forward(self, features: Tensor) -> Tensor:
        components = features @ self.projection + self.offset
        return rbf_kernel(components, self.landmarks) @ self.whitening


def rbf_kernel(rows: Tensor, landmarks: Tensor) -> Tensor:
    """exp(-|row - landmark|^2), (n, c) and (m, c) -> (n, m)."""
    squares = rows.square().sum(1, keepdim=True) + landmarks.square().sum(1)
    return torch.exp(-(squares - 2 * rows @ landmarks.T).clamp(min=0))
