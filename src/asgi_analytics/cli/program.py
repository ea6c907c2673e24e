"""A command line with commands: each is one file in the program's package, found by its name.

A command ``dry-run`` is the module ``dry_run`` of the package. It has

- ``HELP``: one sentence in lower case, without a full stop, for the list of commands;
- ``add_arguments(parser)``, which adds the options and arguments of this command alone;
- ``async run(options, output)``, which does the work and returns its report, a `msgspec.Struct`;
- ``show(report, output)``, which writes the report and returns the exit code.

A module without ``run`` is not a command.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from asgi_analytics import __version__
from asgi_analytics.cli.options import Parser, hide_passwords
from asgi_analytics.cli.output import Output
from asgi_analytics.errors import AnalyticsError
from asgi_analytics.modules import module_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

DONE, PENDING, FAILED, INTERRUPTED, PIPE = 0, 1, 2, 130, 141


class Command(Protocol):
    """What the module of a command has."""

    HELP: str

    def add_arguments(self, parser: Parser) -> None:
        """Add what this command alone takes."""

    async def run(self, options: argparse.Namespace, output: Output) -> Any:
        """Do the work and return the report."""

    def show(self, report: Any, output: Output) -> int:
        """Write the report and return the exit code."""


class Program:
    """The command line ``name``, with a command for each module of ``package`` that has ``run``.

    ``add_options`` adds the options that every command takes. An option may stand before or after the command.
    """

    def __init__(
        self, name: str, package: str, *, description: str, epilog: str, add_options: Callable[[Parser], None]
    ) -> None:
        self.name = name
        self.package = package
        self.description = description
        self.epilog = epilog
        self.add_options = add_options

    def commands(self) -> dict[str, Command]:
        """Return each command by its name."""
        found: dict[str, Command] = {}
        for name in module_names(self.package, import_module(self.package).__path__):
            word = name.rpartition(".")[2]
            if not word.startswith("_"):
                command = import_module(name)
                if hasattr(command, "run"):
                    found[word.replace("_", "-")] = cast("Command", command)
        return found

    def make_parser(self) -> Parser:
        """Return the parser; the reference page prints its help."""
        return self._parsers(self.commands())[0]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run a command and return its exit code."""
        arguments = list(sys.argv[1:] if argv is None else argv)
        output = Output(self.name, as_json="--json" in arguments)
        options = argparse.Namespace()

        def run() -> int:
            commands = self.commands()
            parser, with_value = self._parsers(commands)
            parser.parse_args(command_first(arguments, with_value), options)
            output.command = options.command
            command = commands[options.command]
            return command.show(asyncio.run(command.run(options, output)), output)

        return run_reporting(run, output, options)

    def _parsers(self, commands: Mapping[str, Command]) -> tuple[Parser, frozenset[str]]:
        """Return the parser, and every option that takes a value."""
        parser = Parser(prog=self.name, description=self.description, epilog=self.epilog)
        parser.add_argument("--version", action="version", version=f"{self.name} {__version__}")
        self.add_options(parser)
        with_value = parser.with_value
        subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
        for name, command in commands.items():
            text = command.HELP
            subparser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
            self.add_options(subparser)
            command.add_arguments(subparser)
            with_value |= subparser.with_value
        return parser, with_value


def run_reporting(body: Callable[[], int], output: Output, options: argparse.Namespace) -> int:
    """Call ``body`` and return its exit code, or 2 after an error, which is one line on stderr without a password.

    ``options`` may be empty until ``body`` has parsed them.
    """
    try:
        try:
            code = body()
        except SystemExit as left:  # argparse, after --help or --version
            code = int(left.code or DONE)
        output.flush()
        return code
    except KeyboardInterrupt as error:
        output.error(error, "interrupted: unfinished work was rolled back or is safe to repeat; run it again")
        return INTERRUPTED
    except BrokenPipeError:  # | head
        return PIPE
    except AnalyticsError as error:
        output.error(error, hide_passwords(str(error), options))
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {error}; please report it"
        output.error(error, hide_passwords(text, options))
    return FAILED


def command_first(arguments: Sequence[str], with_value: frozenset[str]) -> list[str]:
    """Return the arguments with the command in front, where argparse expects it."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        if arguments[at] in ("-h", "--help", "--version"):
            return list(arguments)
        at += 2 if arguments[at] in with_value else 1
    return [*arguments[at : at + 1], *arguments[:at], *arguments[at + 1 :]]
