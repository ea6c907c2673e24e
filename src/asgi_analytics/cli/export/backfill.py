"""The command ``backfill``: copy what was stored before the export was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics import values
from asgi_analytics.cli.export.runs import add_run_arguments, load_modules, show_ran
from asgi_analytics.cli.options import database_url, option
from asgi_analytics.errors import ConfigError
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import want_backfill

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.exports.exporter import Ran

HELP = "copy the events of before the export was made, the oldest first; nothing is copied twice"


def add_arguments(parser: Parser) -> None:
    """Add the name, and the range, which is everything by default."""
    add_run_arguments(parser)
    for name, target, text in (("--from", "since", "start of the range"), ("--to", "until", "end of the range")):
        parser.add_argument(
            name, dest=target, metavar="TIME", type=option(values.time), help=f"{text}: {values.TIME} (default: none)"
        )


async def run(options: argparse.Namespace, output: Output) -> Ran:
    """Note the range, and run the export until it is copied."""
    since, until = options.since, options.until
    if since is not None and until is not None and since >= until:
        raise ConfigError(f"--from {since.isoformat()} is not before --to {until.isoformat()}: swap them")
    load_modules(options)
    await want_backfill(database_url(options), options.name, since=since, until=until, schema=options.schema)
    return await Exporter(database_url(options), options.name, schema=options.schema).run(patience=options.patience)


show = show_ran
