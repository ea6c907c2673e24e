"""The command ``status``: which steps are applied, and which are pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.migrate.steps import page, pending_advice
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import milliseconds
from asgi_analytics.cli.program import DONE, PENDING
from asgi_analytics.migrate import runner

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.migrate.report import Report, Step

HELP = "show what is applied and what is pending; exits 1 if something is pending"


def add_arguments(parser: Parser) -> None:
    """Add nothing: the options of every command are enough."""


async def run(options: argparse.Namespace, output: Output) -> Report:
    """Look, and change nothing."""
    return await runner.status(database_url(options), **session_options(options, output))


def show(report: Report, output: Output) -> int:
    """Write every step; return 1 if one is pending."""
    rows = [[step.name, step.description, _state(step)] for step in (*report.applied, *report.pending)]
    output.report(report, page(report, rows, pending_advice(report) if report.pending else "Nothing is pending."))
    return PENDING if report.pending else DONE


def _state(step: Step) -> str:
    if step.applied_at is None:
        return "pending"
    return f"applied {step.applied_at:%Y-%m-%d %H:%M} UTC, {milliseconds(step.duration_ms)}"
