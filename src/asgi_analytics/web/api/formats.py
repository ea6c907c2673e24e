"""The forms of an answer: JSON, CSV and newline-delimited JSON."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_analytics.reading.question import Question
    from asgi_analytics.web.api.parameters import Format

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8; header=present",
    "ndjson": "application/x-ndjson",
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a text begins with that a spreadsheet would calculate."""


class Rows:
    """The rows of a question's answers: those of its list, or of the list that its struct begins with; else one row."""

    def __init__(self, question: Question) -> None:
        answer = question.types["return"]
        self._list: str | None = None
        self.is_list = get_origin(answer) is list
        """Whether an answer is nothing but rows."""
        if self.is_list:
            [self.row] = get_args(answer)
        else:
            first = msgspec.structs.fields(answer)[0]
            if get_origin(first.type) is list:
                self._list = first.name
                [self.row] = get_args(first.type)
            else:
                self.row = answer
        self._columns = list(_columns(self.row))

    def of(self, results: Any) -> Sequence[Any]:
        """Return the rows of an answer."""
        if self.is_list:
            rows: Sequence[Any] = results
            return rows
        return [results] if self._list is None else getattr(results, self._list)

    def header(self) -> bytes:
        """Return the first line of CSV: the fields of the struct, those of a struct within it as ``field.field``."""
        return lines([[".".join(path) for path in self._columns]])

    def csv(self, rows: Iterable[Any]) -> bytes:
        """Return rows as lines of CSV."""
        return lines([_cell(row, path) for path in self._columns] for row in msgspec.to_builtins(rows))


def ndjson(rows: Iterable[Any]) -> bytes:
    """Return rows as lines of JSON."""
    return msgspec.json.Encoder().encode_lines(rows)


def _columns(row: Any) -> Iterable[tuple[str, ...]]:
    for field in msgspec.structs.fields(row):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from ((field.name, *path) for path in _columns(field.type))
        else:
            yield (field.name,)


def _cell(row: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        row = row[name]
    if isinstance(row, bool | list | dict):
        return msgspec.json.encode(row).decode()
    return row


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return lines of CSV, in which no text is a formula."""
    text = io.StringIO()
    csv.writer(text).writerows([_unformulated(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _unformulated(value: Any) -> Any:
    # A spreadsheet takes what follows an apostrophe for text.
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value
