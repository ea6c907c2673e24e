"""The command ``status``: what was asked for, and what of it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin import subjects
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading
from asgi_analytics.cli.program import DONE, PENDING

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.admin.subjects import Request, RequestsReport
    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "list what was asked for, newest first; exits 1 if a request was interrupted"


def add_arguments(parser: Parser) -> None:
    """Add the user, who may be left out."""
    parser.add_argument(
        "user", metavar="USER", nargs="?", help="list the requests of this person only; the log itself does not say who"
    )


async def run(options: argparse.Namespace, output: Output) -> RequestsReport:
    """Look, and change nothing."""
    return await subjects.status(database_url(options), options.user, **session_options(options, output))


def show(report: RequestsReport, output: Output) -> int:
    """Write each request; return 1 if one is not completed."""
    is_open = any(request.completed_at is None for request in report.requests)
    rows = [
        [str(one.id), one.kind, f"requested {one.requested_at:%Y-%m-%d %H:%M} UTC", _state(one), one.subject[:12]]
        for one in report.requests
    ]
    last = "A request was interrupted: run its command again." if is_open else "Nothing is open."
    output.report(report, "\n".join([heading(report), *aligned(rows), last]))
    return PENDING if is_open else DONE


def _state(request: Request) -> str:
    if request.completed_at is None:
        return f"open, due {request.due_at:%Y-%m-%d}"
    return f"completed {request.completed_at:%Y-%m-%d %H:%M} UTC, {sum(request.rows.values()):,} rows"
