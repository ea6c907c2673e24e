"""The command line ``analytics-subject``: export, anonymise or erase what is stored of a person."""

from __future__ import annotations

from asgi_analytics.cli.options import add_session_options
from asgi_analytics.cli.program import Program

EPILOG = """\
USER is the id as the application says it: a UUID, or any other text or number. The database is --database-url, or the
variable DATABASE_URL, or PLATFORM_DATABASE_URL, in this order: PostgreSQL, where the role owns the tables, or SQLite.
The spool is --spool, or the variable ANALYTICS_SPOOL.

exit codes: 0 done; 1 a request was interrupted (status only); 2 error, in one line on stderr; 130 interrupted.
What was interrupted is gone on with by the same command. Stop giving the id before: an event that arrives afterwards
makes new rows. Options may stand before or after the command.
"""


program = Program(
    "analytics-subject",
    __name__,
    description="Export, anonymise or erase what is stored of a person, and log it without saying who it was.",
    epilog=EPILOG,
    add_options=add_session_options,
)
main = program.main
make_parser = program.make_parser
