"""The command ``remove``: forget an export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url
from asgi_analytics.cli.program import DONE
from asgi_analytics.exports.setup import Wanted, remove_export

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "forget an export, so that the retention waits for it no longer; the warehouse keeps its copy"


def add_arguments(parser: Parser) -> None:
    """Add the name."""
    parser.add_argument("name", metavar="NAME", help="name of the export")


async def run(options: argparse.Namespace, output: Output) -> Wanted:
    """Remove the export."""
    return await remove_export(database_url(options), options.name, schema=options.schema)


def show(report: Wanted, output: Output) -> int:
    """Say that it is gone."""
    output.report(report, f"The export {report.name} is removed. The warehouse keeps its copy.")
    return DONE
