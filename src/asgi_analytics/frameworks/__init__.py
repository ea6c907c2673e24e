"""What single frameworks need beyond plain ASGI: one file each, found by looking. No file imports its framework."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from asgi_analytics.instrumentation.requests.framework import Framework
from asgi_analytics.modules import module_names

if TYPE_CHECKING:
    from collections.abc import Sequence


def known_frameworks() -> Sequence[type[Framework]]:
    """Return the `Framework` of each file here."""
    modules = [import_module(name) for name in module_names(__name__, __path__)]
    return [
        thing
        for module in modules
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, Framework) and thing.__module__ == module.__name__
    ]
