"""The command ``refresh``: bring the aggregates up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics import values
from asgi_analytics.admin.refresh import RefreshReport, refresh_views
from asgi_analytics.cli.options import database_url, option, session_options
from asgi_analytics.cli.output import aligned, heading, milliseconds, sentences
from asgi_analytics.cli.program import DONE
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "bring the aggregates up to date; for cron on plain PostgreSQL, and after a backfill"


def add_arguments(parser: Parser) -> None:
    """Add the range, which is everything by default."""
    for name, target, text in (("--from", "since", "start of the range"), ("--to", "until", "end of the range")):
        parser.add_argument(
            name, dest=target, metavar="TIME", type=option(values.time), help=f"{text}: {values.TIME} (default: none)"
        )


async def run(options: argparse.Namespace, output: Output) -> RefreshReport:
    """Refresh the range, or all that is pending."""
    since, until = options.since, options.until
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--from {since.isoformat()} is not before --to {until.isoformat()}: swap them")
    return await refresh_views(database_url(options), since=since, until=until, **session_options(options, output))


def show(report: RefreshReport, output: Output) -> int:
    """Write each range that was refreshed."""
    rows = [
        [view.view, f"{view.start or 'the beginning'}", f"{view.end or 'now'}", milliseconds(view.duration_ms)]
        for view in report.refreshed
    ]
    last = "The aggregates are up to date." if report.refreshed else "Nothing was pending."
    output.report(report, "\n".join([heading(report), *aligned(rows), *sentences(report.notes), last]))
    return DONE
