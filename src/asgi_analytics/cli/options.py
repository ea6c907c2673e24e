"""The options of a command line: read alike by every command, and wrong ones reported in one line."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from asgi_analytics import values
from asgi_analytics.database.sqlite.url import is_sqlite, read_sqlite_url
from asgi_analytics.database.url import read_dsn, without_urls
from asgi_analytics.errors import AnalyticsError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asgi_analytics.cli.output import Output
    from asgi_analytics.migrate.session import Options

T = TypeVar("T")

DATABASE_VARIABLES = ("DATABASE_URL", "PLATFORM_DATABASE_URL")


class UsageError(AnalyticsError):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` instead of exiting. The message holds no URL, which may have a password."""

    with_value: frozenset[str] = frozenset()
    """The options that take a value."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an option or an argument, and remember whether it takes a value."""
        action = super().add_argument(*names, **settings)
        if action.nargs != 0:
            self.with_value |= frozenset(action.option_strings)
        return action

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing several lines and exiting."""
        raise UsageError(f"{without_urls(message)}; see {self.prog} --help")


def option(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return ``read``, one of `asgi_analytics.values`, as a type of an option: the error quotes what was given."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}; got {text!r}") from None

    return convert


def add_database_url(parser: Parser) -> None:
    """Add ``--database-url``, which `database_url` reads."""
    parser.add_argument(
        "--database-url", metavar="URL", help="postgresql://user:password@host:5432/database, or sqlite:///analytics.db"
    )


def add_session_options(parser: Parser) -> None:
    """Add the options of a command that works on the schema: which database and schema, how long to wait, JSON."""
    add_database_url(parser)
    parser.add_argument(
        "--schema",
        metavar="NAME",
        help="schema of the tables, created if missing (default: the first of the search_path)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, also for an error")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=option(values.seconds),
        help="how long to wait for the server and for another run, together; 0 waits for neither "
        "(default: the server must answer at once, another run is waited for as long as it takes)",
    )


def session_options(options: argparse.Namespace, output: Output) -> Options:
    """Return the options of `add_session_options` as arguments of `asgi_analytics.migrate.runner.migrate`."""
    return {
        "schema": options.schema,
        "wait": options.wait,
        "require_timescaledb": getattr(options, "require_timescaledb", False),
        "tell": output.tell,
    }


def database_url(options: argparse.Namespace) -> str:
    """Return the URL of ``--database-url``, or else of a variable. Raises `ConfigError` that names the source."""
    for source, url in _database_urls(options):
        try:
            read_sqlite_url(url) if is_sqlite(url) else read_dsn(url)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        return url
    raise ConfigError("no database is named: give --database-url, or set DATABASE_URL or PLATFORM_DATABASE_URL")


def hide_passwords(text: str, options: argparse.Namespace) -> str:
    """Return a text without the passwords of the databases that options and variables name."""
    for _, url in _database_urls(options):
        try:
            text = read_dsn(url).hide(text)
        except ConfigError:
            continue
    return text


def _database_urls(options: argparse.Namespace) -> Iterable[tuple[str, str]]:
    given = {"--database-url": getattr(options, "database_url", None)}
    given |= {name: os.environ.get(name) for name in DATABASE_VARIABLES}
    return [(source, url) for source, url in given.items() if url]
