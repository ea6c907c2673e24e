"""The command ``list``: what the registry holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin.schemas import RegistryReport, list_schemas
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading, sentences
from asgi_analytics.cli.program import DONE

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "list the schemas of all types, with all versions"


def add_arguments(parser: Parser) -> None:
    """Add nothing: the options of every command are enough."""


async def run(options: argparse.Namespace, output: Output) -> RegistryReport:
    """Read the registry."""
    return await list_schemas(database_url(options), **session_options(options, output))


def show(report: RegistryReport, output: Output) -> int:
    """Write a line for each version."""
    rows = [
        [
            one.event_type,
            f"version {one.version}",
            "active" if one.is_active else "",
            one.event_category,
            f"{one.retention_days} days",
            f"{one.updated_at:%Y-%m-%d %H:%M} UTC",
            "needs " + ", ".join(one.required_fields) if one.required_fields else "",
        ]
        for one in report.schemas
    ]
    last = [] if rows else ["The registry is empty: analytics-schemas sync MODULE fills it"]
    output.report(report, "\n".join([heading(report), *aligned(rows), *sentences(report.notes), *last]))
    return DONE
