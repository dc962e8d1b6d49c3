"""Validation: valid pictures keep their bytes; broken, cut, too large or foreign ones are rejected with a reason."""

import contextlib
import hashlib
import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from headstart.images import decode
from headstart.images.decode import PictureError, configured_pil, open_upright, validate_picture
from pictures import ORIENTATION, decoded, difference, encoded, picture


@pytest.fixture(autouse=True)
def _pil() -> Iterator[None]:
    with configured_pil():
        yield


def rejected(data: bytes, **options: int) -> tuple[str, str]:
    with pytest.raises(PictureError) as caught:
        validate_picture(data, **options)
    return caught.value.kind, str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg")])
def test_a_valid_picture_keeps_its_bytes(mode: str, kind: str, suffix: str) -> None:
    data = encoded(picture(mode=mode), kind)
    validated = validate_picture(data)
    assert (validated.data, validated.suffix, validated.conversions) == (data, suffix, ())
    assert validated.sha256 == hashlib.sha256(data).hexdigest()
    assert (validated.width, validated.height) == (40, 24)


def test_the_format_is_found_without_a_name() -> None:
    assert validate_picture(encoded(picture(), "PNG")).suffix == ".png"  # whatever the file was called


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "empty"),
        (b"just text", "not_a_picture", "just text"),
        (b"\n <!DOCTYPE html><html>", "web_page", "web page"),
        (b"\x89PNG\r\n\x1a\n", "not_a_picture", "PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_a_picture", "not a picture"),
    ],
)
def test_what_is_no_picture_is_rejected_with_a_reason(data: bytes, kind: str, words: str) -> None:
    found, reason = rejected(data)
    assert found == kind
    assert words in reason


@given(share=st.floats(0, 0.95), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]))
def test_a_cut_file_never_passes(share: float, kind: str) -> None:
    data = encoded(picture(size=(64, 64)), kind)
    rejected(data[: int(len(data) * share)])


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"RIFF"]))
def test_any_bytes_are_a_picture_or_a_reason(rest: bytes, magic: bytes) -> None:
    with contextlib.suppress(PictureError):  # anything else would stop the stage
        validate_picture(magic + rest)


@given(where=st.integers(0, 10_000), to=st.integers(1, 255))
def test_a_changed_byte_in_a_png_is_found(where: int, to: int) -> None:
    data = bytearray(encoded(picture()))
    where = 8 + where % (len(data) - 20)
    data[where] ^= to
    rejected(bytes(data))


def test_too_many_and_too_few_pixels() -> None:
    bomb = encoded(Image.new("1", (20_000, 6_000)))
    assert len(bomb) < 100_000
    assert rejected(bomb) == ("too_large", "20000 x 6000 pixels, more than 100,000,000: make it smaller")
    assert rejected(encoded(Image.new("1", (20_000, 15_000)))) == (
        "too_large",
        "300,000,000 pixels, more than 100,000,000: make it smaller",
    )
    assert rejected(encoded(Image.new("1", (60_000, 6_000))))[0] == "too_large"
    assert rejected(encoded(picture(size=(1, 1))), min_side=8)[0] == "too_small"
    assert validate_picture(encoded(picture(size=(8, 30))), min_side=8).width == 8


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_BYTES", 10)
    assert rejected(encoded(picture()))[0] == "too_large"


# --- HEIC ---

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0"


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"heim", b"mif1"])
def test_heic_without_pillow_heif_names_what_to_install(monkeypatch: pytest.MonkeyPatch, brand: bytes) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    kind, reason = rejected(HEIC.replace(b"heic", brand))
    assert kind == "heic"
    install = "needs pillow-heif: .venv/bin/pip install -e '.[heic]', then dvc repro -f fetch"
    assert reason == f"HEIC, which {install}; or convert it to JPEG"


class FakeHeif(ImageFile.ImageFile):
    """What pillow-heif's class makes of a turned photograph: upright pixels, and 1 as EXIF's orientation."""

    format = "HEIF"

    def _open(self) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = 1
        self._size, self._mode = (40, 24), "RGB"
        self.info = {"exif": exif.tobytes(), "original_orientation": 6}

    def load(self) -> Any:
        self.im = picture().im
        return Image.Image.load(self)


def test_heic_is_read_by_pillow_heif_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(HeifImageFile=FakeHeif))
    validated = validate_picture(HEIC)
    assert (validated.suffix, validated.conversions, validated.orientation) == (".png", ("heif",), 1)
    assert difference(decoded(validated.data), picture()) == 0
    with open_upright(HEIC) as upright:
        assert difference(upright, picture()) == 0


def test_heic_as_pillow_heif_writes_it() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture(size=(64, 48))).save(buffer, quality=-1)
    validated = validate_picture(buffer.getvalue())
    assert (validated.width, validated.height, validated.conversions) == (64, 48, ("heif",))
    assert difference(decoded(validated.data), picture(size=(64, 48))) < 12
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pillow_heif.from_pillow(picture(size=(64, 48))).save(turned := io.BytesIO(), quality=-1, exif=exif.tobytes())
    assert (validate_picture(turned.getvalue()).width, validate_picture(turned.getvalue()).orientation) == (48, 1)
    assert rejected(buffer.getvalue()[:300])[0] == "broken"
