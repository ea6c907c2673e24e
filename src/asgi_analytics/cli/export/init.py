"""The command ``init``: make an export that begins now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asgi_analytics.cli.options import database_url
from asgi_analytics.cli.program import DONE
from asgi_analytics.errors import ConfigError
from asgi_analytics.exports.setup import Made, init_export

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

URL = "ANALYTICS_EXPORT_URL"

HELP = "make an export that copies what is committed from now on; as the owner of the tables"


def add_arguments(parser: Parser) -> None:
    """Add the name and the URL."""
    parser.add_argument("name", metavar="NAME", help="name of the export")
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        help="file:///folder, s3://bucket/prefix, gs://bucket/prefix, duckdb:///file, bigquery://project/dataset or "
        f"redshift://host/database?stage=s3://bucket/prefix (default: the variable {URL}, which keeps a password out "
        "of the list of processes)",
    )


async def run(options: argparse.Namespace, output: Output) -> Made:
    """Make the export, or give it the URL."""
    url = options.url or os.environ.get(URL)
    if not url:
        raise ConfigError(f"no warehouse is named: give its URL, or set {URL}")
    return await init_export(database_url(options), options.name, url, schema=options.schema)


def show(report: Made, output: Output) -> int:
    """Say what was made, and what comes next."""
    done = "begins now" if report.is_new else "existed, and has the URL now"
    lines = [
        f"The export {report.name} to {report.warehouse} {done}.",
        f"Next: analytics-export backfill {report.name}, if older events are wanted; "
        f"analytics-export run {report.name} --every 60",
    ]
    output.report(report, "\n".join(lines))
    return DONE
