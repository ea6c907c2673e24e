"""The command ``check``: whether events are valid by the classes and the registry."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from asgi_analytics.admin.schemas import active_schemas
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.output import aligned
from asgi_analytics.cli.program import DONE, PENDING
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "check a JSON array of events as analytics-ingest --strict-types does; exits 1 if one is not valid"
MOST = 1_000_000
"""Events of a file."""
ANY_TIME = timedelta(days=36_500)


class Wrong(msgspec.Struct, frozen=True):
    """An event that is not valid."""

    index: int
    """Its place in the array, from 0."""
    reason: str
    field: str | None


class CheckReport(msgspec.Struct, frozen=True):
    """What is wrong with the events of a file."""

    events: int
    invalid: tuple[Wrong, ...]


def add_arguments(parser: Parser) -> None:
    """Add the file."""
    parser.add_argument("file", metavar="FILE", help="a JSON array of events, as they are sent; - is stdin")


async def run(options: argparse.Namespace, output: Output) -> CheckReport:
    """Check each event, of any age, by its class or else by its schema; ids, times and services may be left out."""
    # Imported here, so that the other commands do without the extra.
    from asgi_analytics.web.ingestion.elements import NotAnArray, TooManyElements, split
    from asgi_analytics.web.ingestion.registry import compiled
    from asgi_analytics.web.ingestion.validation import Validator

    name = "stdin" if options.file == "-" else options.file
    try:
        lines = split(_read(options.file, name), MOST)
    except NotAnArray as error:
        raise ConfigError(f"{name} is not a JSON array: {error}") from None
    except TooManyElements:
        raise ConfigError(f"{name} has more than {MOST} events: check it in parts") from None
    schemas = await active_schemas(database_url(options), **session_options(options, output))
    validator = Validator(strict_types=True, retention={None: ANY_TIME}, max_ahead=ANY_TIME)
    validator.use(compiled(schemas))
    _, _, refused = validator.check([None if line is None else _sendable(line) for line in lines])
    return CheckReport(len(lines), tuple(Wrong(one.index, one.reason, one.field) for one in refused))


def _sendable(line: bytes) -> bytes:
    """Return an event with what a client adds by itself, unless it is there: files of examples do without."""
    try:
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError):
        return line  # the validator says what it is
    given = {"event_id": uuid4(), "timestamp": datetime.now(UTC), "service": "-"}
    return msgspec.json.encode({**given, **members})


def _read(file: str, name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror or error}") from None


def show(report: CheckReport, output: Output) -> int:
    """Write what is wrong with each event that is not valid; return 1 if there is one."""
    rows = [[f"event {one.index}", one.field or "", one.reason] for one in report.invalid]
    last = f"Valid events: {report.events - len(rows)} of {report.events}"
    output.report(report, "\n".join([*aligned(rows), last]))
    return PENDING if rows else DONE
