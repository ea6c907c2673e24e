"""The command ``run``: copy what is new, once or for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from typing import TYPE_CHECKING

from asgi_analytics import values
from asgi_analytics.cli.export.runs import add_run_arguments, load_modules, show_ran
from asgi_analytics.cli.options import database_url, option
from asgi_analytics.exports.exporter import Exporter, Ran
from asgi_analytics.log import log

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "copy what was committed since the last run, and what a backfill has left; once, or for ever with --every"


def add_arguments(parser: Parser) -> None:
    """Add the name, how often, and how long to try."""
    add_run_arguments(parser)
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=option(values.positive_seconds),
        help="run for ever, so often, until SIGTERM or SIGINT",
    )


async def run(options: argparse.Namespace, output: Output) -> Ran:
    """Run the export."""
    load_modules(options)
    exporter = Exporter(database_url(options), options.name, schema=options.schema)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not on every system, nor in every thread
            loop.add_signal_handler(number, exporter.stop)
    if options.every is None:
        return await exporter.run(patience=options.patience)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    total = Ran(name=options.name)

    def tell(ran: Ran) -> None:
        total.events += ran.events
        total.dead_letters += ran.dead_letters
        total.batches += ran.batches
        total.erased += ran.erased
        if ran.events or ran.erased:
            log.info("export %s: batches %d, rows erased %d, events %d", ran.name, ran.batches, ran.erased, ran.events)

    await exporter.run_every(options.every, tell)
    return total


show = show_ran
