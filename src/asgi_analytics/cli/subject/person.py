"""Who it is about, and where else to look: what the commands have in common, and how they show what they did."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading, sentences
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from asgi_analytics.admin.subjects import SubjectReport
    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

VARIABLE = "ANALYTICS_SPOOL"

MOST_SHOWN = 20
"""How many rows of others are shown; ``--json`` has them all."""


def add_person(parser: Parser) -> None:
    """Add the user and the spool."""
    parser.add_argument(
        "user", metavar="USER", help="the id, as the application says it; after --, if it begins with -"
    )
    parser.add_argument("--spool", metavar="FOLDER", help=f"folder of the spool (default: the variable {VARIABLE})")


def add_events(parser: Parser) -> None:
    """Add the modules whose event classes say what is personal."""
    parser.add_argument(
        "--events",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module with event classes of your own, whose Personal fields go too; may be given several times",
    )


def import_events(options: argparse.Namespace) -> None:
    """Import the modules with event classes, from the current folder too. Raises `ConfigError`."""
    if options.events and "" not in sys.path:
        sys.path.insert(0, "")
    for name in options.events:
        try:
            import_module(name)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"--events {name}: it cannot be imported: {type(error).__name__}: {error}") from error


def user(options: argparse.Namespace) -> str:
    """Return the id of the person. Raises `ConfigError` for an empty one: a variable of a shell that is not set."""
    if not options.user.strip():
        raise ConfigError("USER is empty: give the id as the application says it")
    return str(options.user)


def spool(options: argparse.Namespace) -> str | None:
    """Return the folder of the spool, if one is named."""
    return options.spool or os.environ.get(VARIABLE) or None


async def forget(
    command: Callable[..., Awaitable[SubjectReport]], options: argparse.Namespace, output: Output
) -> SubjectReport:
    """Call `erase` or `anonymise` with what the options say."""
    return await command(database_url(options), user(options), spool=spool(options), **session_options(options, output))


def show_report(report: SubjectReport, output: Output, done: str) -> None:
    """Write how many rows of which tables there were, and who else's rows quote the id."""
    lines = [heading(report)]
    lines += aligned([table, f"{number:,}", done] for table, number in sorted(report.request.rows.items()))
    if report.mentions:
        lines.append("These rows are not the person's, quote the id, and are as they were:")
        lines += aligned(
            [one.table, one.timestamp or "", one.id or "", one.column] for one in report.mentions[:MOST_SHOWN]
        )
    more = len(report.mentions[MOST_SHOWN:]) + report.more_mentions
    if more:
        lines.append(f"There are more of them, which --json lists: {more:,}")
    lines += sentences(report.notes)
    lines.append(f"Rows {done}: {sum(report.request.rows.values()):,}; request {report.request.id}")
    output.report(report, "\n".join(lines))
