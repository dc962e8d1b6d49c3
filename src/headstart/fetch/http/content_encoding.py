"""Bodies that a server compressed although it was not asked to: decompressed piece by piece, complete or an error."""

import zlib
from collections.abc import Iterator

import aiohttp

from headstart.fetch.http.responses import DownloadError

_CHUNK_BYTES = 2**20  # decompressed at once: a small body may become gigabytes
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class Decoder:
    """The bytes of a file out of the bytes of a response's body."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Begin a body.

        Raises:
            DownloadError: it has an encoding other than gzip and deflate.
        """
        self._encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if self._encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise DownloadError("encoding", f"the server sent it in the encoding {self._encoding!r}, unasked")
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB) if self._encoding not in ("", "identity") else None

    def decode(self, received: bytes) -> Iterator[bytes]:
        """The file's bytes in the received ones.

        Raises:
            DownloadError: they are not what the encoding says.
        """
        if self._stream is None:
            yield received
            return
        try:
            while received:
                if self._stream.eof:  # gzip allows several members, one after the other
                    self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
                if chunk := self._stream.decompress(received, _CHUNK_BYTES):
                    yield chunk
                received = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error as error:
            reason = f"not {self._encoding}, as the server calls it ({error})"
            raise DownloadError("encoding", reason, retry=True) from None

    def finish(self) -> Iterator[bytes]:
        """What is left after the last byte.

        Raises:
            DownloadError: the compressed stream has not ended.
        """
        if self._stream is None:
            return
        yield self._stream.flush()  # output that did not fit into the last chunk
        if not self._stream.eof:
            raise DownloadError("truncated", f"the body ends within its {self._encoding}", retry=True)
