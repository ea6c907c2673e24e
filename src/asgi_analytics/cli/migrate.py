"""The command ``analytics-migrate``: the schema of the analytics, made, brought up to date and refreshed."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics import __version__
from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.admin.roles import READER, WRITER, make_roles
from asgi_analytics.cli import table
from asgi_analytics.cli.command_line import Parser, UsageError, database_url
from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import AnalyticsError, ConfigError
from asgi_analytics.log import one_line
from asgi_analytics.migrate import runner
from asgi_analytics.migrate.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_analytics.admin.refresh import RefreshReport
    from asgi_analytics.admin.roles import RolesReport

DONE, PENDING, FAILED, INTERRUPTED, PIPE = 0, 1, 2, 130, 141

COMMANDS = {
    "all": "apply every pending step: pre, then post",
    "pre": "make tables and indexes: before the new version of the application starts",
    "post": "make aggregates and policies: when the old version is gone",
    "status": "say what is applied and what is pending; exits 1 when something is pending",
    "dry-run": "print the SQL of the pending steps, for psql; change nothing",
    "refresh": "bring the aggregates up to date; for cron on plain PostgreSQL, and after a backfill",
    "roles": "make two roles to grant to login roles: a writer that can insert and nothing else, and a reader",
}
EPILOG = """\
The database is --database-url, or the variable DATABASE_URL, or PLATFORM_DATABASE_URL, in this order. A variable keeps
the password out of the list of processes. postgresql+asyncpg:// and postgres:// are read as postgresql://.

exit codes: 0 done, or nothing pending; 1 something is pending (status only); 2 error, in one line on stderr;
130 interrupted.
Options may stand before or after the command. refresh takes --from and --to besides, roles takes --writer, --reader
and --dry-run, behind the command: analytics-migrate roles --help.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; the reference page prints its help."""
    # SUPPRESS: what stands before the command would be overwritten by the defaults of the options behind it
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--database-url", metavar="URL", help="postgresql://user:password@host:5432/database")
    shared.add_argument(
        "--schema",
        metavar="NAME",
        help="schema of the tables, made when missing (default: the first of the search_path)",
    )
    shared.add_argument("--json", action="store_true", help="print one JSON document on stdout, also for an error")
    shared.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_seconds,
        help="wait so long for the server and for another run, together; 0 waits for neither "
        "(default: the server must answer at once, another run is waited for as long as it takes)",
    )
    shared.add_argument(
        "--require-timescaledb", action="store_true", help="refuse a database that is plain PostgreSQL (exit 2)"
    )
    options: dict[str, Any] = {
        "parents": [shared],
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = Parser(
        prog="analytics-migrate",
        description="Make, update, inspect and refresh the analytics schema of a database.",
        epilog=EPILOG,
        **options,
    )
    parser.add_argument("--version", action="version", version=f"analytics-migrate {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", **options)
        if name == "refresh":
            _add_range(command)
        if name == "roles":
            command.add_argument("--writer", metavar="ROLE", default=WRITER, help="its name (default: %(default)s)")
            command.add_argument("--reader", metavar="ROLE", default=READER, help="its name (default: %(default)s)")
            command.add_argument("--dry-run", action="store_true", help="print the SQL, for psql; change nothing")
    _add_range(parser.add_argument_group("of refresh"))
    return parser


def _add_range(parser: argparse._ActionsContainer) -> None:
    for option, name, text in (("--from", "since", "begin there"), ("--to", "until", "end before it")):
        parser.add_argument(
            option, dest=name, metavar="TIME", type=_time, default=argparse.SUPPRESS, help=f"{_TIME}; {text}"
        )


_TIME = "ISO 8601, 2026-11-20 or 2026-11-20T12:00+01:00, UTC when it names no zone"


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: use {_TIME}") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0")
    return seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    command: str | None = None
    url = ""
    try:
        options = make_parser().parse_args(arguments)
        command = options.command
        if command != "refresh" and (hasattr(options, "since") or hasattr(options, "until")):
            raise UsageError(f"--from and --to are options of refresh, not of {command}; see analytics-migrate --help")
        url = database_url(getattr(options, "database_url", None), os.environ)
        report = asyncio.run(_run(options, url))
        code = _show(options.command, report, as_json)
        sys.stdout.flush()
        return code
    except AnalyticsError as exc:
        return _fail(command, exc, _hidden(url, str(exc)), as_json)
    except KeyboardInterrupt as exc:
        text = "interrupted: what was half-done is rolled back or safe to repeat, run it again"
        return _fail(command, exc, text, as_json, INTERRUPTED)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE
    except Exception as exc:
        text = f"unexpected {type(exc).__name__}: {exc}; please report it"
        return _fail(command, exc, _hidden(url, text), as_json)


async def _run(options: argparse.Namespace, url: str) -> Report | RefreshReport | RolesReport:
    settings: dict[str, Any] = {
        "schema": getattr(options, "schema", None),
        "wait": getattr(options, "wait", None),
        "require_timescaledb": getattr(options, "require_timescaledb", False),
        "tell": _tell,
    }
    match options.command:
        case "status":
            return await runner.status(url, **settings)
        case "dry-run":
            return await runner.dry_run(url, **settings)
        case "refresh":
            since, until = getattr(options, "since", None), getattr(options, "until", None)
            if since is not None and until is not None and since >= until:
                raise ConfigError(f"--from {since.isoformat()} is not before --to {until.isoformat()}: swap them")
            return await refresh_views(url, since=since, until=until, **settings)
        case "roles":
            names = {"writer": options.writer, "reader": options.reader}
            return await make_roles(url, **names, dry_run=options.dry_run, **settings)
        case phase:
            return await runner.migrate(url, phase=phase, **settings)


def _show(command: str, report: Report | RefreshReport | RolesReport, as_json: bool) -> int:
    is_dry_run = getattr(report, "sql", None) is not None
    if as_json:
        document = msgspec.to_builtins(report)
        if not is_dry_run:
            document.pop("sql", None)
        _print_json({"command": command, "ok": True, **document})
    else:
        for warning in report.warnings:
            _tell(f"warning: {warning}")
        if is_dry_run:
            _tell(f"{report.database}, schema {report.schema}; the SQL is on stdout, nothing is changed")
        sys.stdout.write(table.render(command, report))
    return PENDING if command == "status" and isinstance(report, Report) and report.pending else DONE


def _fail(command: str | None, exc: BaseException, text: str, as_json: bool, code: int = FAILED) -> int:
    text = one_line(text)
    document: dict[str, Any] = {"command": command, "ok": False, "error": text}
    document |= {name: getattr(exc, name) for name in ("file", "applied") if hasattr(exc, name)}
    if as_json:
        _print_json(document)
    _tell(text)
    return code


def _hidden(url: str, text: str) -> str:
    return read_dsn(url).hide(text) if url else text


def _tell(text: str) -> None:
    sys.stderr.write(f"analytics-migrate: {one_line(text)}\n")


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


if __name__ == "__main__":
    sys.exit(main())
