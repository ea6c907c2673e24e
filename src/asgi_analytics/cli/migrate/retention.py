"""The command ``retention``: how long raw rows are kept, by category."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin.retention import RetentionReport, check, retention
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned, heading, sentences
from asgi_analytics.cli.program import DONE
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "show for how many days raw rows of each category are kept, or change it"


def add_arguments(parser: Parser) -> None:
    """Add the changes, and the dry run."""
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="CATEGORY=DAYS",
        action="append",
        default=[],
        help="keep rows of a category for so many days, at least 1; may be given several times",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say how many rows that would drop; change nothing")


async def run(options: argparse.Namespace, output: Output) -> RetentionReport:
    """Change what is to be changed, and return how it is."""
    change: dict[str, int] = {}
    for category, days in map(_change, options.changes):
        if change.setdefault(category, days) != days:
            raise ConfigError(f"--set gives {category} {change[category]} days and {days} days: leave one out")
    return await retention(
        database_url(options), change=change, dry_run=options.dry_run, **session_options(options, output)
    )


def _change(text: str) -> tuple[str, int]:
    category, _, days = text.partition("=")
    category, days = category.strip(), days.strip()
    if not (days.isascii() and days.isdecimal()) or len(days) > 9:
        raise ConfigError(f"--set {text!r}: use CATEGORY=DAYS with a whole number of days, as in --set system=30")
    check(category, int(days))
    return category, int(days)


def show(report: RetentionReport, output: Output) -> int:
    """Write each category, and what a change drops."""
    rows = [["category", "days", "", "rows whose time is over"]]
    for one in report.categories:
        was = "" if one.previous_days in (None, one.days) else f"(was {one.previous_days})"
        rows.append([one.category, f"{one.days}", was, f"{one.due}"])
    if any(one.previous_days is not None for one in report.categories):
        last = f"Rows that the change {'drops within a day' if report.changed else 'would drop'}: {report.drops}"
    else:
        last = "Rows are dropped within a day after their time is over; aggregates and sessions stay."
    output.report(report, "\n".join([heading(report), *aligned(rows), *sentences(report.notes), last]))
    return DONE
