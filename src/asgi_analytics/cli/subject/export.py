"""The command ``export``: write all that is stored of a person."""

from __future__ import annotations

import csv
import io
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.admin import subjects
from asgi_analytics.cli.options import database_url, session_options
from asgi_analytics.cli.program import DONE
from asgi_analytics.cli.subject.person import add_person, spool, user
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects import Exported
    from asgi_analytics.cli.options import Parser
    from asgi_analytics.cli.output import Output

HELP = "write all that is stored of a person to stdout"

COLUMNS = ("table", "timestamp", "id", "event_type", "service", "session_id", "context", "data")
"""Of CSV. All that has no column of its own is JSON in ``data``."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a text begins with that a spreadsheet would calculate. It takes what follows an apostrophe for text."""


def add_arguments(parser: Parser) -> None:
    """Add the user and the format."""
    add_person(parser)
    parser.add_argument(
        "--format",
        choices=("json", "csv"),
        help="json: an object with the rows of each table; csv: one line per row (default: json)",
    )


async def run(options: argparse.Namespace, output: Output) -> None:
    """Write the rows as they come."""
    if options.json and options.format == "csv":
        raise ConfigError("--json and --format csv exclude each other: leave one out")
    rows = subjects.stream(
        database_url(options), user(options), spool=spool(options), **session_options(options, output)
    )
    async with aclosing(rows):
        await (_write_csv if options.format == "csv" else _write_json)(rows, output)


def show(report: None, output: Output) -> int:
    """Write nothing more."""
    return DONE


async def _write_json(rows: AsyncIterator[Exported], output: Output) -> None:
    """Write one document, one row per line."""
    output.data('{"command": "export", "ok": true, "tables": {')
    table = None
    async for one in rows:
        if one.table != table:
            name = msgspec.json.encode(one.table).decode()
            output.data(f"\n{name}: [\n" if table is None else f"\n],\n{name}: [\n")
        else:
            output.data(",\n")
        output.data(bytes(one.row).decode())
        table = one.table
    output.data("}}\n" if table is None else "\n]}}\n")


async def _write_csv(rows: AsyncIterator[Exported], output: Output) -> None:
    output.data(_line(COLUMNS))
    async for one in rows:
        row = msgspec.json.decode(one.row, type=dict[str, msgspec.Raw])
        cells = {"table": one.table, "timestamp": one.timestamp, "id": one.id}
        for column in COLUMNS[1:-1]:
            if column in row:
                cells[column] = _text(row.pop(column))
        data = row.pop("data", None) if set(row) <= {"data", "user_id"} else None
        row.pop("user_id", None)
        cells["data"] = bytes(data).decode() if data is not None else msgspec.json.encode(row).decode()
        output.data(_line([cells.get(column) for column in COLUMNS]))


def _text(value: msgspec.Raw) -> str | None:
    """Return a JSON value as it stands in a cell."""
    text = bytes(value).decode()
    if text == "null":
        return None
    return str(msgspec.json.decode(text)) if text.startswith('"') else text


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([f"'{cell}" if cell and cell.startswith(FORMULA) else cell for cell in cells])
    return text.getvalue()
