"""What the commands about schema steps share: how they apply the steps of a phase, and how they show steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading, milliseconds, sentences
from asgi_analytics.cli.program import DONE
from asgi_analytics.migrate import runner

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.output import Output
    from asgi_analytics.migrate.plan import Wanted
    from asgi_analytics.migrate.report import Report


async def apply(phase: Wanted, options: argparse.Namespace, output: Output) -> Report:
    """Apply the pending steps of a phase and return what was done."""
    return await runner.migrate(database_url(options), phase=phase, **session_options(options, output))


def show_applied(report: Report, output: Output) -> int:
    """Write the steps that were applied, and what to do next."""
    rows = [[step.name, step.description, milliseconds(step.duration_ms)] for step in report.applied]
    if report.pending:
        last = pending_advice(report)
    else:
        last = "Nothing is pending. " if report.applied else "Nothing was pending. "
        last += "Next: start the application"
        if report.flavour != "timescaledb":
            last += ", whose worker refreshes the aggregates, or run refresh from cron"
    output.report(report, page(report, rows, last))
    return DONE


def page(report: Report, rows: list[list[str]], last: str) -> str:
    """Return a report for people: the database, the rows, the notes, and a last line."""
    return "\n".join([heading(report), *aligned(rows), *sentences(report.notes), last])


def pending_advice(report: Report) -> str:
    """Return how many steps are pending, and the command that applies them."""
    phases = {step.phase for step in report.pending}
    if phases == {"pre"}:
        advice = "analytics-migrate pre"
    elif phases == {"post"}:
        advice = "start the new version of the application, then analytics-migrate post"
    else:
        advice = "analytics-migrate all; or pre, then the new version of the application, then post"
    return f"Steps pending: {len(report.pending)}. Next: {advice}"
