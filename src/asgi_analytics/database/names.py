"""Names of schemas and roles: checked, and quoted for SQL."""

from __future__ import annotations

from asgi_analytics.errors import ConfigError

LONGEST = 63
"""Bytes that PostgreSQL keeps of a name; a longer one is cut, and is then another name."""


def quoted(name: str) -> str:
    """Return a name as an SQL identifier; it may hold any character but NUL."""
    return '"' + name.replace('"', '""') + '"'


def checked(name: str, kind: str) -> str:
    """Return the name if it can be that of a ``kind``, such as a schema. Raises `ConfigError`."""
    size = len(name.encode("utf-8", "replace"))
    if not 0 < size <= LONGEST or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in name):
        raise ConfigError(f"{name!r} cannot be the name of a {kind}: use 1 to {LONGEST} bytes of text")
    return name
