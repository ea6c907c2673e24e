"""The command ``dry-run``: the SQL that ``all`` would run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.program import DONE
from asgi_analytics.migrate import runner

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.migrate.report import Report

HELP = "print the SQL of the pending steps, for psql; change nothing"


def add_arguments(parser: Parser) -> None:
    """Add nothing: the options of every command are enough."""


async def run(options: argparse.Namespace, output: Output) -> Report:
    """Return the SQL of the pending steps."""
    return await runner.dry_run(database_url(options), **session_options(options, output))


def show(report: Report, output: Output) -> int:
    """Write the SQL alone to stdout."""
    output.sql(report, report.sql or "-- nothing is pending\n")
    return DONE
