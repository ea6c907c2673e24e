"""The command ``pre``: what has to be there before the new version of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.migrate.steps import apply, show_applied

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.migrate.report import Report

HELP = "create tables and indexes; run it before the new version of the application starts"


def add_arguments(parser: Parser) -> None:
    """Add nothing: the options of every command are enough."""


async def run(options: argparse.Namespace, output: Output) -> Report:
    """Apply the pending steps."""
    return await apply("pre", options, output)


def show(report: Report, output: Output) -> int:
    """Write what was applied."""
    return show_applied(report, output)
