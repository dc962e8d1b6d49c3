"""Generated foreign pictures: every kind, half of them grey, the same bits for the same seed."""

import numpy as np

from headstart.images.foreign_pictures import foreign_pictures


def test_every_kind_is_drawn_and_repeatable() -> None:
    pictures = foreign_pictures(48, 6, seed=3)
    assert list(pictures) == ["noise", "flat colours", "gradients", "stripes", "checkerboards", "text"]
    again, other = foreign_pictures(48, 6, seed=3), foreign_pictures(48, 6, seed=4)
    for kind, drawn in pictures.items():
        assert drawn.shape == (6, 48, 48, 3)
        assert drawn.dtype == np.uint8
        np.testing.assert_array_equal(drawn, again[kind])
        assert (drawn != other[kind]).any()
        grey = (drawn.min(-1) == drawn.max(-1)).all((1, 2))
        assert grey[1::2].all()
        assert not grey[::2].any()
        assert len({picture.tobytes() for picture in drawn}) == 6


def test_each_kind_is_what_its_name_says() -> None:
    pictures = foreign_pictures(64, 4, seed=0)
    shades = {kind: len(np.unique(drawn[0].reshape(-1, 3), axis=0)) for kind, drawn in pictures.items()}
    assert shades["flat colours"] == 1
    assert shades["stripes"] == shades["checkerboards"] == 2
    assert min(shades["gradients"], shades["text"]) > 10
    assert shades["noise"] > 10
    assert foreign_pictures(64, 1, seed=0).keys() == pictures.keys()
