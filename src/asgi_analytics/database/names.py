"""Names of schemas and roles: checked, and quoted for SQL."""

from __future__ import annotations

from asgi_analytics.errors import ConfigError

LONGEST = 63
"""Bytes that PostgreSQL keeps of a name; it cuts a longer one, which then is another name."""


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, whatever stands in it."""
    return '"' + name.replace('"', '""') + '"'


def checked(name: str, kind: str) -> str:
    """Return a name that can be one of a ``kind``, a schema for instance; raises `ConfigError`."""
    size = len(name.encode("utf-8", "replace"))
    if not 0 < size <= LONGEST or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in name):
        raise ConfigError(f"{name!r} is no name of a {kind}: use 1 to {LONGEST} bytes of text")
    return name
