"""The command ``drop``: take the tables, views and functions away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import heading, sentences
from asgi_analytics.cli.program import DONE
from asgi_analytics.migrate.drop import DropReport, drop

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "drop every table, view and function that this program made, with all events; only with --yes"


def add_arguments(parser: Parser) -> None:
    """Add the confirmation."""
    parser.add_argument("--yes", action="store_true", help="do it; without, say what would be dropped and exit 2")


async def run(options: argparse.Namespace, output: Output) -> DropReport:
    """Drop, or refuse."""
    return await drop(database_url(options), yes=options.yes, **session_options(options, output))


def show(report: DropReport, output: Output) -> int:
    """Write how much was dropped."""
    last = f"Dropped: {len(report.dropped)}."
    output.report(report, "\n".join([heading(report), *sentences(report.notes), last]))
    return DONE
