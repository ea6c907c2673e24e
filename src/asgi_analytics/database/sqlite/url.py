"""URLs of SQLite databases: ``sqlite:///analytics.db``, and with one more slash ``sqlite:////var/lib/analytics.db``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import msgspec

from asgi_analytics.errors import ConfigError

SCHEME = "sqlite"
EXPECTED = "expected sqlite:///analytics.db, or sqlite:////var/lib/analytics.db for an absolute path"


class SqliteUrl(msgspec.Struct, frozen=True):
    """Where a database is: a file."""

    path: Path
    """Absolute, so that it stays the same when the process changes its folder."""

    @property
    def uri(self) -> str:
        """What `sqlite3.connect` takes with ``uri=True``; without ``?mode=``, which opening adds."""
        return self.path.as_uri()

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"the SQLite database {self.path}"

    def hide(self, text: str) -> str:
        """Return the text: a path is no secret."""
        return text


def is_sqlite(url: object) -> bool:
    """Tell whether a URL is one of SQLite, well-formed or not."""
    return isinstance(url, str) and url.strip().partition(":")[0].lower() in (SCHEME, "sqlite3")


def read_sqlite_url(text: str) -> SqliteUrl:
    """Read a URL. Raises `ConfigError`, for a database in memory too: every connection would have its own."""
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != SCHEME:
        raise ConfigError(f"the database URL cannot be read: {EXPECTED}")
    if "?" in rest or "#" in rest:
        raise ConfigError(f"the database URL has parameters, and SQLite takes none (write ? as %3F): {EXPECTED}")
    if not rest.startswith("/"):
        raise ConfigError(f"the database URL has {'a host' if rest else 'no path'}: {EXPECTED}")
    name = unquote(rest[1:])
    if not name or name == ":memory:":
        raise ConfigError(f"a database in memory would be another one for every connection: {EXPECTED}")
    if "\x00" in name or name.endswith("/"):
        raise ConfigError(f"the database URL does not name a file: {EXPECTED}")
    return SqliteUrl(Path(name).absolute())
