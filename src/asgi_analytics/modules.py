"""Find the modules of a package whose files need no registry: frameworks, sinks, commands."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable


def module_names(package: str, path: Iterable[str]) -> list[str]:
    """Return the full name of each module of a package, given its ``__name__`` and ``__path__``.

    Raises `ConfigError` if there is none: a program that packs applications leaves out what no file imports by name.
    Without the modules endpoints would be null and URLs unknown, and nothing would say why.
    """
    names = [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]
    if not names:
        raise ConfigError(
            f"the modules of {package} are missing from this packed application: "
            "collect all submodules and data files of asgi_analytics"
        )
    return names
