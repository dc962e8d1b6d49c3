"""TensorFlow's padding `same`, by which timm's tf_* networks convolve (timm.layers.Conv2dSame)."""


def same_padding_sides(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after one side of a picture, so that the output has size / stride pixels, rounded up."""
    span = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + span - size, 0)
    return total // 2, total - total // 2
