"""What the commands read alike: options, of which a wrong one is told in one line, and which database is meant."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from asgi_analytics.database.url import read_dsn, without_urls
from asgi_analytics.errors import AnalyticsError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("DATABASE_URL", "PLATFORM_DATABASE_URL")


class UsageError(AnalyticsError):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError`; the text holds no URL, which may have a password."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing several lines and exiting."""
        raise UsageError(f"{without_urls(message)}; see {self.prog} --help")


def database_url(given: str | None, environ: Mapping[str, str]) -> str:
    """Return the URL of ``--database-url``, or else of a variable; raises `ConfigError` that names the source."""
    for source, url in {"--database-url": given, **{name: environ.get(name) for name in VARIABLES}}.items():
        if url:
            try:
                read_dsn(url)
            except ConfigError as exc:
                raise ConfigError(f"{source}: {exc}") from None
            return url
    raise ConfigError("no database is named: give --database-url, or set DATABASE_URL or PLATFORM_DATABASE_URL")
