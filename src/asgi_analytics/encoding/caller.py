"""Who sent a request, for the worker to say what is stored of it: a visitor, a device, a place.

The address and the agent stay in memory, from the request until the worker has looked at them. What it says of them is
put into the context of the request's page view, and of the events that the application tracks in the request.
"""

from __future__ import annotations

from typing import Any

import msgspec

MAX_AGENT = 512
MAX_HOST = 255
"""Bytes of the headers that are looked at."""


class Caller(msgspec.Struct, gc=False):
    """Who sent one request."""

    time: int
    """When it came, in Unix nanoseconds by the clock of the client."""
    address: str | None
    agent: bytes
    """What the header User-Agent says."""
    host: bytes
    """What the header Host says."""
    country: bytes | None
    """What the header that ``PageViews(country_header=…)`` names says."""
    is_followed: bool
    """False if the visitor asked not to be followed: counted, but no visitor."""
    described: bytes | None = None
    """The members of the context that the worker has made of it: ``,"visitor":…``, or nothing."""

    def describe(self, members: dict[str, Any]) -> None:
        """Keep what is said of the caller, and forget what it was made of."""
        self.described = b"," + _encode(members)[1:-1] if members else b""
        self.address, self.agent, self.host, self.country = None, b"", b"", None


class CallerLine(msgspec.Struct, gc=False):
    """The JSON line of an event, whose context is to say who the caller was."""

    text: bytes
    caller: Caller

    @property
    def weight(self) -> int:
        """What it counts for in the queue, in bytes."""
        return len(self.text)

    @property
    def time(self) -> int:
        """When the request came, in Unix nanoseconds."""
        return self.caller.time

    def line(self) -> bytes:
        """Return the JSON of the event."""
        return with_caller(self.text, self.caller)


def with_caller(line: bytes, caller: Caller) -> bytes:
    """Return the JSON of an event, which ends with its context, with what is said of the caller."""
    return line[:-2] + caller.described + b"}}" if caller.described else line


_encode = msgspec.json.Encoder().encode
