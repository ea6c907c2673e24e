"""The body of a request, read within limits: nothing is read, unpacked or kept beyond them."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Self

from asgi_analytics.web.problem import CLOSE, Problem

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request

_GZIP = 31  # how zlib is told to expect a gzip header and the largest window


class ByteBudget:
    """The bytes that all requests together may hold: ``with budget.share() as share: share.add(n)``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def share(self) -> _Share:
        """Return the share of one request, which is empty."""
        return _Share(self)


class _Share:
    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def add(self, number: int) -> None:
        """Take more bytes, until the context ends; raises `Problem` 503 if the budget is used up."""
        if self._budget.used + number > self._budget.most:
            raise Problem(503, "too many batches are waiting here: send it again later", {"Retry-After": "2"} | CLOSE)
        self._budget.used += number
        self._bytes += number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.used -= self._bytes


class Limits:
    """How large one body may be, and how long it may take to arrive."""

    def __init__(self, *, max_bytes: int, timeout: float) -> None:
        self.max_bytes = max_bytes
        self.timeout = timeout

    def too_large(self) -> Problem:
        """Return the answer to a body that is too large."""
        return Problem(413, f"the body has more than {self.max_bytes} bytes (uncompressed): send smaller batches")

    def check(self, headers: Headers) -> bool:
        """Tell from the headers whether the body is gzip; raises `Problem` 413 or 415 before anything is read."""
        _require_json(headers)
        encodings = [word for part in headers.getlist("content-encoding") if (word := part.strip().lower())]
        if any(word not in ("gzip", "x-gzip", "identity") for word in encodings) or len(encodings) > 1:
            raise Problem(415, "send the body uncompressed or with Content-Encoding: gzip", {"Accept-Encoding": "gzip"})
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes:
            raise self.too_large()
        return encodings not in ([], ["identity"])

    async def read(self, request: Request, share: _Share, *, is_gzip: bool) -> bytes:
        """Return the body, unpacked.

        Raises `Problem`: 400 for broken compression, 408 when it takes longer than ``timeout`` seconds in all, 413 as
        soon as it grows too large, 503 if the budget is used up. Starlette's ClientDisconnect passes through.
        """
        unpack = _Gunzip(self) if is_gzip else None
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.timeout):
                async for chunk in request.stream():
                    if unpack is not None:
                        chunk = unpack.feed(chunk, self.max_bytes - size)
                    size += len(chunk)
                    if size > self.max_bytes:
                        raise self.too_large()
                    share.add(len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            raise Problem(408, f"the body took longer than {self.timeout:g} seconds", CLOSE) from None
        if unpack is not None:
            unpack.end()
        return b"".join(chunks)


def _require_json(headers: Headers) -> None:
    content_type = headers.get("content-type")
    if content_type is None:
        # Any page can make a browser send such a request to this machine; these headers show that it is a browser.
        if "origin" in headers or "sec-fetch-site" in headers:
            raise Problem(415, "send Content-Type: application/json", {"Accept-Post": "application/json"})
        return
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    is_json = media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
    charsets = [p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset=")]
    if not is_json or any(charset not in ("utf-8", "utf8", "us-ascii") for charset in charsets):
        raise Problem(415, "send Content-Type: application/json, in UTF-8", {"Accept-Post": "application/json"})


class _Gunzip:
    """Unpacks gzip piece by piece, never further than the limit."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stream = zlib.decompressobj(_GZIP)
        self._read = 0

    def feed(self, chunk: bytes, most: int) -> bytes:
        self._read += len(chunk)
        if self._read > self._limits.max_bytes:
            raise self._limits.too_large()
        unpacked: list[bytes] = []
        try:
            while chunk:
                if self._stream.eof:  # another member follows, or padding
                    chunk = chunk.lstrip(b"\0")
                    if not chunk:
                        break
                    self._stream = zlib.decompressobj(_GZIP)
                unpacked.append(self._stream.decompress(chunk, most + 1))
                most -= len(unpacked[-1])
                if most < 0:
                    raise self._limits.too_large()
                chunk = self._stream.unused_data
        except zlib.error:
            raise Problem(400, "the body is not gzip, or the gzip is broken") from None
        return b"".join(unpacked)

    def end(self) -> None:
        if not self._stream.eof:
            raise Problem(400, "the gzip ends early")
