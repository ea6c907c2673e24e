"""The command ``roles``: two roles that login roles can be made members of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin.roles import READER, WRITER, make_roles
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading, sentences
from asgi_analytics.cli.program import DONE
from asgi_analytics.database.names import quoted

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.admin.roles import RolesReport
    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "create roles to grant to login roles: a writer that can only insert, and a reader"

DESCRIPTIONS = {"writer": "inserts, and nothing else", "reader": "reads, and nothing else", "exporter": "runs exports"}


def add_arguments(parser: Parser) -> None:
    """Add the names, and the dry run."""
    parser.add_argument("--writer", metavar="ROLE", default=WRITER, help="name of the writer (default: %(default)s)")
    parser.add_argument("--reader", metavar="ROLE", default=READER, help="name of the reader (default: %(default)s)")
    parser.add_argument(
        "--exporter", metavar="ROLE", help="also create this role, for what runs analytics-export (default: none)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the SQL, for psql; change nothing")


async def run(options: argparse.Namespace, output: Output) -> RolesReport:
    """Create the roles if they are missing, and grant them their rights."""
    return await make_roles(
        database_url(options),
        writer=options.writer,
        reader=options.reader,
        exporter=options.exporter,
        dry_run=options.dry_run,
        **session_options(options, output),
    )


def show(report: RolesReport, output: Output) -> int:
    """Write the roles, or the SQL of a dry run."""
    if report.sql is not None:
        output.sql(report, report.sql)
        return DONE
    rows = [[role.name, DESCRIPTIONS[role.purpose], "created" if role.is_new else "existed"] for role in report.roles]
    last = f"Next: GRANT {quoted(report.roles[0].name)} TO the login roles of the application"
    output.report(report, "\n".join([heading(report), *aligned(rows), *sentences(report.notes), last]))
    return DONE
