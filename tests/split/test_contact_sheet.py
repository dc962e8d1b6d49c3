"""The contact sheet shows merged pairs, and the nearest pairs left apart, side by side at their places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageDraw

from headstart.base.errors import UserError
from headstart.split.contact_sheet import CAPTION, COLUMNS, GAP, HEADING, MARGIN, SIDE, write_contact_sheet
from headstart.split.duplicate_search import SHOWN, DuplicateSearch, PicturePair
from photographs import store

Colour = tuple[int, int, int]
PLAIN = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (200, 160, 20), (120, 20, 160), (20, 150, 170)]


def plain(root: Path, number: int, size: tuple[int, int] = (300, 300)) -> PicturePair:
    """Two pictures of one colour each."""
    first, second = (
        store(Pillow.new("RGB", size, PLAIN[(2 * number + which) % len(PLAIN)]), root, 2 * number + which)
        for which in (0, 1)
    )
    return PicturePair(first, second, 1 - number / 100, number / 100, number % 60)


def write(search: DuplicateSearch, root: Path) -> Pillow.Image:
    path = root / "stages/split/near-duplicates.jpg"
    write_contact_sheet(search, root, path)
    with Pillow.open(path) as opened:
        assert opened.format == "JPEG"
        return opened.convert("RGB")


def middle_of(sheet: Pillow.Image, top: int, number: int, which: int) -> Colour:
    """The colour in the middle of a picture of a pair, below a heading at `top`."""
    x = MARGIN + number % COLUMNS * (2 * SIDE + GAP + MARGIN) + which * (SIDE + GAP) + SIDE // 2
    y = top + HEADING + number // COLUMNS * (SIDE + CAPTION + MARGIN) + SIDE // 2
    red, green, blue = np.asarray(sheet)[y, x].tolist()
    return red, green, blue


def is_near(one: Colour, other: Colour) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 12


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on the sheet."""
    written: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[int, int], words: str, **more: object) -> None:
        written.append(words)
        draw(self, xy, words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written


def test_merged_pairs_come_first_the_least_alike_of_them_at_the_top(tmp_path: Path, texts: list[str]) -> None:
    merged, apart = [plain(tmp_path, number) for number in range(6)], [plain(tmp_path, 50), plain(tmp_path, 51)]
    sheet = write(DuplicateSearch(tuple(merged), tuple(apart), 0.62), tmp_path)
    row = SIDE + CAPTION + MARGIN
    assert sheet.size == (MARGIN + COLUMNS * (2 * SIDE + GAP + MARGIN), MARGIN + 2 * HEADING + 3 * row)
    second = MARGIN + HEADING + 2 * row
    for top, pairs in ((MARGIN, merged[::-1]), (second, apart)):
        for number, pair in enumerate(pairs):
            for which, image in enumerate((pair.first, pair.second)):
                assert is_near(middle_of(sheet, top, number, which), PLAIN[image.id % len(PLAIN)])
    assert texts[0] == (
        "Near-duplicates, kept in one split (all, the least alike first): distance up to 0.62, or cosine from 0.80 and "
        "hashes near"
    )
    assert texts[1] == "cosine 0.95   distance 0.05   5 bits"
    assert texts[7] == "The nearest pairs that are none, free to be in different splits"
    assert len(texts) == 2 + 8


def test_of_many_merged_pairs_the_least_alike_are_shown(tmp_path: Path, texts: list[str]) -> None:
    merged = [plain(tmp_path, number, (20, 20)) for number in range(SHOWN + 3)]
    sheet = write(DuplicateSearch(tuple(merged), (), 0.5), tmp_path)
    assert "(the 24 least alike of 27, the least alike first)" in texts[0]
    captions = [text for text in texts if text.startswith("cosine")]
    assert [float(text.split()[3]) for text in captions] == [pair.distance for pair in merged[:2:-1]]
    assert is_near(middle_of(sheet, MARGIN, 0, 0), PLAIN[merged[-1].first.id % len(PLAIN)])


def test_the_longest_words_fit_the_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[float] = []
    draw = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[int, int], words: str, **more: object) -> None:
        ends.append(self.textbbox(xy, words, font=more["font"])[2])  # type: ignore[arg-type]
        draw(self, xy, words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    pair = plain(tmp_path, 0)
    sheet = write(DuplicateSearch((pair,) * 123_456, (pair,), 0.82), tmp_path)
    assert max(ends) < sheet.width
    assert len(ends) == SHOWN + 3


@pytest.mark.parametrize("size", [(900, 20), (20, 900), (3000, 2000), (1, 1)])
def test_pictures_of_any_shape_stay_in_their_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    sheet = np.asarray(write(DuplicateSearch((plain(tmp_path, 0, size),), (), 0.5), tmp_path)).astype(int)
    coloured = np.ptp(sheet, axis=2) > 60
    rows, columns = np.nonzero(coloured)
    top = MARGIN + HEADING
    if max(size) > 1:  # JPEG mixes a single pixel with what is round it
        assert top - 8 <= rows.min() <= rows.max() < top + SIDE + 8
        assert MARGIN - 8 <= columns.min() <= columns.max() < MARGIN + 2 * SIDE + GAP + 8
        share = min(size) / max(size)
        assert coloured.sum() == pytest.approx(2 * SIDE * SIDE * share, rel=0.6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_coloured_jpegs(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "stored.jpg"
    Pillow.new("RGB", (1200, 900), (90, 90, 90)).convert(mode).save(path)
    image = store(Pillow.new("RGB", (4, 4)), tmp_path, 0).model_copy(update={"file_name": path.name})
    sheet = write(DuplicateSearch((PicturePair(image, image, 1.0, 0.0, 0),), (), 0.5), tmp_path)
    assert is_near(middle_of(sheet, MARGIN, 0, 1), (90, 90, 90))


def test_a_sheet_without_pairs_tells_why(tmp_path: Path, texts: list[str]) -> None:
    write(DuplicateSearch((), (), 0.5), tmp_path)
    write(DuplicateSearch(), tmp_path)
    assert texts == ["No pictures are near each other", "Only identical pictures were looked for"]


def test_a_picture_that_is_gone_is_one_line(tmp_path: Path) -> None:
    pair = plain(tmp_path, 0)
    (tmp_path / pair.second.file_name).unlink()
    with pytest.raises(UserError, match=r"1\.png: no such file"):
        write(DuplicateSearch((pair,), (), 0.5), tmp_path)
    assert not (tmp_path / "stages").exists()
