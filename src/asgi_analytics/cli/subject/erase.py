"""The command ``erase``: delete what is stored of a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin import subjects
from asgi_analytics.cli.program import DONE
from asgi_analytics.cli.subject.person import add_person, forget, show_report

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.admin.subjects import SubjectReport
    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "delete every row that holds a person; the numbers of aggregates follow with the next refresh"


def add_arguments(parser: Parser) -> None:
    """Add the user."""
    add_person(parser)


async def run(options: argparse.Namespace, output: Output) -> SubjectReport:
    """Delete the rows."""
    return await forget(subjects.erase, options, output)


def show(report: SubjectReport, output: Output) -> int:
    """Write what was deleted."""
    show_report(report, output, "erased")
    return DONE
