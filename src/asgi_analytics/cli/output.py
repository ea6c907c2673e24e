"""What a command writes: data to stdout, as text or as one JSON document; messages to stderr, one line each."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.errors import ConfigError
from asgi_analytics.log import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable


class Output:
    """The output of one run of ``program``. ``as_json`` prints one JSON document on stdout, for an error too."""

    def __init__(self, program: str, *, as_json: bool = False) -> None:
        self.program = program
        self.as_json = as_json
        self.command: str | None = None

    def tell(self, text: str) -> None:
        """Write a line to stderr."""
        print(f"{self.program}: {one_line(text)}", file=sys.stderr)

    def report(self, report: msgspec.Struct, text: str) -> None:
        """Write a report: as JSON, or as the text, with its ``warnings`` on stderr."""
        if self.as_json:
            document = msgspec.to_builtins(report)
            if document.get("sql", "") is None:  # only a dry run has any
                del document["sql"]
            self._print_json({"command": self.command, "ok": True, **document})
            return
        for warning in getattr(report, "warnings", ()):
            self.tell(f"warning: {warning}")
        self._print(text if text.endswith("\n") else text + "\n")

    def data(self, text: str) -> None:
        """Write a piece of what a command gives out as it is."""
        self._print(text)

    def sql(self, report: Any, sql: str) -> None:
        """Write the SQL of a dry run alone to stdout, and what it is for to stderr; or the report as JSON."""
        self.report(report, sql)
        if not self.as_json:
            self.tell(f"{heading(report)}; the SQL is on stdout, nothing was changed")

    def error(self, error: BaseException, text: str) -> None:
        """Write why the command failed; the JSON document also has the ``file`` and the ``applied`` of the error."""
        text = one_line(text)
        document: dict[str, Any] = {"command": self.command, "ok": False, "error": text}
        document |= {name: getattr(error, name) for name in ("file", "applied") if hasattr(error, name)}
        if self.as_json:
            self._print_json(document)
        self.tell(text)

    def flush(self) -> None:
        """Write out what is buffered. Raises `BrokenPipeError` if the reader has left, else `ConfigError`."""
        self._print("", flush=True)

    def _print_json(self, document: dict[str, Any]) -> None:
        self._print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")

    def _print(self, text: str, *, flush: bool = False) -> None:
        try:
            print(text, end="", flush=flush)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at its end
            if isinstance(error, BrokenPipeError):
                raise
            raise ConfigError(f"cannot write to stdout: {error.strerror or error}") from None


def heading(report: Any) -> str:
    """Return the line that says which database and schema a report is about."""
    return one_line(f"{report.database}, schema {report.schema}")


def sentences(notes: Iterable[str]) -> list[str]:
    """Return each note as a line."""
    return [f"{one_line(note)}." for note in notes]


def milliseconds(value: float | None) -> str:
    """Return a duration for people to read: ``12 ms``, ``14.2 s``, or nothing for None."""
    if value is None:
        return ""
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def aligned(rows: Iterable[list[str]]) -> list[str]:
    """Return each row as a line, with the columns aligned."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
