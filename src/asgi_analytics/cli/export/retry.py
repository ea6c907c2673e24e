"""The command ``retry``: send the dead letters again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.export.runs import add_run_arguments, load_modules, show_ran
from asgi_analytics.cli.options import database_url
from asgi_analytics.exports.exporter import Exporter

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.exports.exporter import Ran

HELP = "send the dead letters of an export again, as far as their events are still stored, and copy what is new"


def add_arguments(parser: Parser) -> None:
    """Add the name."""
    add_run_arguments(parser)


async def run(options: argparse.Namespace, output: Output) -> Ran:
    """Run the export with its dead letters."""
    load_modules(options)
    exporter = Exporter(database_url(options), options.name, schema=options.schema)
    return await exporter.run(patience=options.patience, retry=True)


show = show_ran
