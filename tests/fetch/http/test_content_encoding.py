"""Compressed bodies against Python's own gzip, in pieces of any size."""

import gzip
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.fetch.http import content_encoding
from headstart.fetch.http.content_encoding import Decoder
from headstart.fetch.http.responses import DownloadError


def response(encoding: str) -> Any:
    return SimpleNamespace(headers={"Content-Encoding": encoding} if encoding else {})


def decode(encoding: str, body: bytes, piece: int) -> bytes:
    decoder = Decoder(response(encoding))
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    data = b"".join(chunk for received in pieces for chunk in decoder.decode(received))
    return data + b"".join(decoder.finish())


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.integers(1, 200), st.integers(1, 64))
def test_the_file_comes_back_in_pieces_of_any_size(members: list[bytes], piece: int, chunk: int) -> None:
    data = b"".join(members)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_encoding, "_CHUNK_BYTES", chunk)
        assert decode("gzip", b"".join(map(gzip.compress, members)), piece) == data
        assert decode("deflate", zlib.compress(data), piece) == data
    assert decode("", data + b"x", piece) == data + b"x"


@given(st.binary(min_size=1, max_size=300), st.integers(1, 100))
def test_half_a_body_is_an_error(data: bytes, piece: int) -> None:
    body = gzip.compress(data)
    with pytest.raises(DownloadError, match="ends within its gzip"):
        decode("gzip", body[:-1], piece)


def test_what_is_not_as_it_is_called_is_an_error() -> None:
    with pytest.raises(DownloadError, match="not gzip, as the server calls it"):
        decode("gzip", b"a,b\n1,2\n" * 9, 10)
    with pytest.raises(DownloadError, match="encoding 'br', unasked"):
        Decoder(response("br"))
