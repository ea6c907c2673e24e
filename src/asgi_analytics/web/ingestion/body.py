"""Take the body of a request within its limits: nothing is read, unpacked or kept beyond them."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING, Self

from asgi_analytics.web.problem import CLOSE, Problem

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request

_GZIP = 31  # zlib's word for: a gzip header, and the largest window


class Room:
    """The bytes that all requests together may hold. Use as a context: ``with room.hold() as held: held.add(n)``."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0

    def hold(self) -> _Held:
        """Return what one request holds, nothing yet."""
        return _Held(self)


class _Held:
    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def add(self, number: int) -> None:
        """Hold more bytes; raises `Problem` 503 where there is no room for them."""
        if self._room.used + number > self._room.most:
            raise Problem(503, "too many batches wait here: send it again in a while", {"Retry-After": "2"} | CLOSE)
        self._room.used += number
        self._bytes += number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.used -= self._bytes


class Limits:
    """How much one body may be, and how long it may take."""

    def __init__(self, *, max_bytes: int, timeout: float) -> None:
        self.max_bytes = max_bytes
        self.timeout = timeout

    def too_large(self) -> Problem:
        """Return the answer to a body that is larger."""
        return Problem(413, f"the body has more than {self.max_bytes} bytes (unpacked): send smaller batches")

    def check(self, headers: Headers) -> bool:
        """Tell from the headers whether the body is gzip; raises `Problem` 413 or 415 before anything is read."""
        _demand_json(headers)
        encodings = [word for part in headers.getlist("content-encoding") if (word := part.strip().lower())]
        if any(word not in ("gzip", "x-gzip", "identity") for word in encodings) or len(encodings) > 1:
            raise Problem(415, "send the body as it is or with Content-Encoding: gzip", {"Accept-Encoding": "gzip"})
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.max_bytes:
            raise self.too_large()
        return encodings not in ([], ["identity"])

    async def read(self, request: Request, held: _Held, *, is_gzip: bool) -> bytes:
        """Return the body, unpacked.

        Raises `Problem`: 400 for broken compression, 408 when it takes longer than ``timeout`` seconds in all, 413 as
        soon as it grows too large, 503 without room. Starlette's ClientDisconnect goes through.
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
                    held.add(len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            raise Problem(408, f"the body took longer than {self.timeout:g} seconds", CLOSE) from None
        if unpack is not None:
            unpack.end()
        return b"".join(chunks)


def _demand_json(headers: Headers) -> None:
    content_type = headers.get("content-type")
    if content_type is None:
        # A browser can be made to send such a request to this machine by any page, and says that it is a browser.
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

    def feed(self, chunk: bytes, room: int) -> bytes:
        self._read += len(chunk)
        if self._read > self._limits.max_bytes:
            raise self._limits.too_large()
        unpacked: list[bytes] = []
        try:
            while chunk:
                if self._stream.eof:  # another member follows the last one, or zeros that pad it
                    chunk = chunk.lstrip(b"\0")
                    if not chunk:
                        break
                    self._stream = zlib.decompressobj(_GZIP)
                unpacked.append(self._stream.decompress(chunk, room + 1))
                room -= len(unpacked[-1])
                if room < 0:
                    raise self._limits.too_large()
                chunk = self._stream.unused_data
        except zlib.error:
            raise Problem(400, "the body is no gzip, or a broken one") from None
        return b"".join(unpacked)

    def end(self) -> None:
        if not self._stream.eof:
            raise Problem(400, "the gzip ends too early")
