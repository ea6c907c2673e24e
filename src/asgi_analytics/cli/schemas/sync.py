"""The command ``sync``: bring the registry in line with event classes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from asgi_analytics.admin.schemas import SyncReport, classes_of, sync_schemas
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading, sentences
from asgi_analytics.cli.program import DONE, PENDING

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "take the schemas and categories from the event classes of modules; exits 1 if a breaking change is refused"


def add_arguments(parser: Parser) -> None:
    """Add the modules, and what allows a breaking change."""
    parser.add_argument("modules", metavar="MODULE", nargs="+", help="a module with event classes, such as shop.events")
    parser.add_argument(
        "--breaking",
        action="store_true",
        help="allow a new required field, a removed field, another type: once every sender is up to date",
    )


async def run(options: argparse.Namespace, output: Output) -> SyncReport:
    """Import the modules, and write what their classes say."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    classes = classes_of(options.modules)
    return await sync_schemas(
        database_url(options), classes, allow_breaking=options.breaking, **session_options(options, output)
    )


def show(report: SyncReport, output: Output) -> int:
    """Write what became of each type; return 1 if a change was refused."""
    rows = [[one.event_type, f"version {one.version}", one.change, "; ".join(one.breaking)] for one in report.types]
    last = "The registry is up to date."
    if report.refused:
        last = "Nothing was changed: a refused change breaks senders or readers; give --breaking to make it"
    output.report(report, "\n".join([heading(report), *aligned(rows), *sentences(report.notes), last]))
    return PENDING if report.refused else DONE
