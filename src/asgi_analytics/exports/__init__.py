"""Copies of the events in other engines, one file per warehouse; the scheme of a URL finds the one that lists it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from asgi_analytics.errors import ConfigError
from asgi_analytics.exports.base import NamedByUrl
from asgi_analytics.modules import module_names

if TYPE_CHECKING:
    from asgi_analytics.exports.base import Warehouse


def warehouse_from_url(url: str) -> Warehouse:
    """Return the warehouse for a URL; it connects when it is first used.

    Raises `ConfigError` if no warehouse has the URL's scheme, or the URL is malformed, and `MissingExtra`. The message
    never repeats the URL, which may hold a password.
    """
    scheme = scheme_of(url)
    known: list[str] = []
    for name in module_names(__name__, __path__):
        for candidate in vars(import_module(name)).values():
            if isinstance(candidate, type) and isinstance(candidate, NamedByUrl) and candidate is not NamedByUrl:
                known.extend(candidate.schemes)
                if scheme in candidate.schemes:
                    return candidate.from_url(url.strip())
    choice = ", ".join(f"{one}://" for one in sorted(set(known)))
    raise ConfigError(f"no warehouse for the URL: it has to begin with one of {choice}")


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, in lower case; empty without one."""
    # The part before any other colon may be a user name or a password.
    return url.strip().partition("://")[0].lower() if "://" in url else ""
