"""The padding is timm's."""

import itertools

from timm.layers.padding import get_same_padding

from headstart.engine.cpu.same_padding import same_padding_sides


def test_the_padding_is_timms_the_larger_half_after() -> None:
    for size, kernel, stride, dilation in itertools.product(range(1, 20), range(1, 8), range(1, 5), range(1, 4)):
        before, after = same_padding_sides(size, kernel, stride, dilation)
        assert before + after == get_same_padding(size, kernel, stride, dilation)
        assert after - before in (0, 1)
