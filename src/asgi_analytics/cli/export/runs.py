"""What the commands that run an export share."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from asgi_analytics import values
from asgi_analytics.cli.options import option
from asgi_analytics.cli.program import DONE
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output
    from asgi_analytics.exports.exporter import Ran


def add_run_arguments(parser: Parser) -> None:
    """Add the name of the export, the modules of event classes, and the patience."""
    parser.add_argument("name", metavar="NAME", help="name of the export")
    parser.add_argument(
        "--module",
        metavar="MODULE",
        action="append",
        default=[],
        help="import a module with event classes of your own, for their category and entity; may be repeated",
    )
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=option(values.seconds),
        default=60.0,
        help="how long to try again what fails for a while, since something was copied (default: 60; not with --every)",
    )


def load_modules(options: argparse.Namespace) -> None:
    """Import the modules that the command line names. Raises `ConfigError`."""
    if options.module and "" not in sys.path:
        sys.path.insert(0, "")  # as python -m has it
    for name in options.module:
        try:
            import_module(name)
        except ImportError as error:
            raise ConfigError(f"--module {name} cannot be imported: {error}") from None


def show_ran(report: Ran, output: Output) -> int:
    """Write what was copied."""
    text = f"The export {report.name} is up to date. Events copied: {report.events}"
    if report.erased:
        text += f"; rows erased: {report.erased}"
    if report.dead_letters:
        text += f"; refused and kept in analytics_export_dead_letters: {report.dead_letters}"
    output.report(report, text)
    return DONE
