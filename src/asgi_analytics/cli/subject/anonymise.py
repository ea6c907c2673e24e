"""The command ``anonymise``: keep the rows of a person, without the person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin import subjects
from asgi_analytics.cli.program import DONE
from asgi_analytics.cli.subject.person import add_events, add_person, forget, import_events, show_report

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.admin.subjects import SubjectReport
    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "keep the rows that hold a person, without the ids and what is personal"


def add_arguments(parser: Parser) -> None:
    """Add the user, and the modules with event classes."""
    add_person(parser)
    add_events(parser)


async def run(options: argparse.Namespace, output: Output) -> SubjectReport:
    """Take the person out of the rows."""
    import_events(options)
    return await forget(subjects.anonymise, options, output)


def show(report: SubjectReport, output: Output) -> int:
    """Write what was changed."""
    show_report(report, output, "anonymised")
    return DONE
