"""The command ``status``: how far behind each export is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url
from asgi_analytics.cli.output import aligned
from asgi_analytics.cli.program import DONE, PENDING
from asgi_analytics.exports.status import StatusReport, export_status
from asgi_analytics.log import one_line

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.exports.status import ExportStatus

HELP = "show how far behind each export is; exits 1 if the last attempt of one failed"


def add_arguments(parser: Parser) -> None:
    """Add the name, which may be left out."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="name of one export (default: all)")


async def run(options: argparse.Namespace, output: Output) -> StatusReport:
    """Look, and change nothing."""
    return await export_status(database_url(options), options.name, schema=options.schema)


def show(report: StatusReport, output: Output) -> int:
    """Write a line for each export; return 1 if one fails."""
    rows = [[one.name, one.warehouse, _state(one)] for one in report.exports]
    output.report(
        report, "\n".join(aligned(rows) if rows else ["There is no export: analytics-export init makes one."])
    )
    return PENDING if any(one.attempts for one in report.exports) else DONE


def _state(export: ExportStatus) -> str:
    text = f"copied {export.events}, behind {export.events_behind} ({export.seconds_behind:.0f} s)"
    if export.backfill_from is not None:
        text += f", backfill at {export.backfill_from:%Y-%m-%d %H:%M}"
    if export.dead_letters:
        text += f", dead letters {export.dead_letters}"
    if export.erasures:
        text += f", users to erase {export.erasures}"
    if export.attempts:
        text += f", fails: {one_line(export.last_error)}"
    return text
