"""The sinks that ship, one file each; the scheme of a URL finds the one that lists it in ``schemes``."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from asgi_analytics.errors import ConfigError
from asgi_analytics.modules import module_names
from asgi_analytics.sinks.base import NamedByUrl

if TYPE_CHECKING:
    from asgi_analytics.sinks.base import Sink


def sink_from_url(url: str, *, token: str | None = None) -> Sink:
    """Return the sink for a URL; it connects when it first writes.

    Raises `ConfigError` if no sink has the URL's scheme, or the URL is malformed. The message never repeats the URL,
    which may hold a password.
    """
    if not isinstance(url, str):
        raise ConfigError(f"the URL is a {type(url).__name__}, not a str: is the variable set that should hold it?")
    url = url.strip()  # files and variables often end with a line break
    scheme = _scheme(url)
    known: list[str] = []
    names = module_names(__name__, __path__)
    for name in sorted(names, key=lambda name: name not in sys.modules):  # loaded modules first: they cost nothing
        for candidate in vars(import_module(name)).values():
            if isinstance(candidate, type) and isinstance(candidate, NamedByUrl):
                known.extend(candidate.schemes)
                if scheme in candidate.schemes:
                    return candidate.from_url(url, token=token)
    if not scheme.replace("+", "").isalnum():
        raise ConfigError("the URL has no scheme: use postgresql://user:password@host/database or http://host:8094")
    choice = ", ".join(f"{one}://" for one in sorted(set(known)))
    raise ConfigError(f"no sink for a URL that starts with {scheme}: use one of {choice}")


def _scheme(url: str) -> str:
    # The part before any other colon may be a user name or a password.
    return url.partition("://")[0].lower() if "://" in url else ""
