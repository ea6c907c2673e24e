"""The command ``copy``: move from SQLite to PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.output import aligned, sentences
from asgi_analytics.cli.program import DONE
from asgi_analytics.migrate.copy import CopyReport, copy

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "copy all rows of an SQLite database to PostgreSQL; may be interrupted and run again"


def add_arguments(parser: Parser) -> None:
    """Add the two databases."""
    parser.add_argument("--from", dest="source", metavar="URL", required=True, help="sqlite:///analytics.db")
    # Read, and kept out of messages, as the database of any other command.
    parser.add_argument(
        "--to", dest="database_url", metavar="URL", required=True, help="postgresql://user:password@host:5432/database"
    )


async def run(options: argparse.Namespace, output: Output) -> CopyReport:
    """Copy."""
    return await copy(options.source, options.database_url, tell=output.tell)


def show(report: CopyReport, output: Output) -> int:
    """Write how many rows were copied."""
    rows = [
        ["events", f"{report.events} copied, {report.known} were there, {report.rejected} rejected"],
        ["metrics", f"{report.metrics} copied"],
        *([name.replace("_", " "), f"{number}"] for name, number in report.others.items()),
    ]
    heading = f"{report.source} to {report.target}"
    output.report(report, "\n".join([heading, *aligned(rows), *sentences(report.notes)]))
    return DONE
