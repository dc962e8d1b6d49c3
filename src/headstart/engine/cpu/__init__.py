"""Faster CPU kernels for convolutions, behind `optimize`: the same function, in training and in inference."""
