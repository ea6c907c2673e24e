"""The command ``rebase``: let all exports go on in another cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url
from asgi_analytics.cli.program import DONE
from asgi_analytics.exports.setup import Wanted, rebase

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "let all exports go on in another cluster, after a dump was restored or after pg_upgrade; as the owner"


def add_arguments(parser: Parser) -> None:
    """Add nothing: the options of every command are enough."""


async def run(options: argparse.Namespace, output: Output) -> Wanted:
    """Renumber what comes from now on."""
    return await rebase(database_url(options), schema=options.schema)


def show(report: Wanted, output: Output) -> int:
    """Say whether there was anything to do."""
    done = "The exports go on in this cluster." if report.is_done else "Nothing was to be done: this is their cluster."
    output.report(report, done)
    return DONE
