"""The command ``all``: apply every pending step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.migrate.steps import apply, show_applied

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.migrate.report import Report

HELP = "apply every pending step: pre, then post"


def add_arguments(parser: Parser) -> None:
    """Add nothing: the options of every command are enough."""


async def run(options: argparse.Namespace, output: Output) -> Report:
    """Apply the pending steps."""
    return await apply("all", options, output)


def show(report: Report, output: Output) -> int:
    """Write what was applied."""
    return show_applied(report, output)
