"""Named, described blocks of SQL in ``.sql`` files: the one place where SQL is kept.

A block begins with its name between dashes. The comment directly below says what it does; the rest is the SQL::

    -- find_event --
    -- Find an event by its id. $1 is the id.
    SELECT * FROM analytics_events WHERE id = $1;
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADER = re.compile(r"--\s+(?P<name>\S.*?)\s+--\s*")
NAME = re.compile(r"[a-z][a-z0-9_]*")


class BlockError(LookupError):
    """A block does not exist or is not written as the format demands; the message names the file."""


class Blocks:
    """The blocks of one file. ``blocks["name"]`` is the SQL, without its description and last semicolon."""

    def __init__(self, file: str, texts: Mapping[str, str]) -> None:
        self._file = file
        self._texts = texts

    def __getitem__(self, name: str) -> str:
        """Return the SQL of a block. Raises `BlockError` for an unknown name."""
        try:
            return self._texts[name]
        except KeyError:
            raise BlockError(f"{self._file} has no block {name!r}; it has {', '.join(self._texts)}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of the file."""
        return iter(self._texts)


@functools.cache
def load(package: str, name: str) -> Blocks:
    """Return the blocks of a file inside a package: ``load("asgi_analytics.migrate", "ledger.sql")``.

    Raises `BlockError` for a file that breaks the format, and `FileNotFoundError`.
    """
    return parse(resources.files(package).joinpath(name).read_text("utf-8"), name)


def parse(text: str, file: str) -> Blocks:
    """Return the blocks of a text; ``file`` is what errors call it. Raises `BlockError`."""
    bodies: dict[str, list[str]] = {}
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = HEADER.fullmatch(line)
        if header is None:
            if not bodies and line.strip() and not line.startswith("--"):
                raise BlockError(f"{file}, line {number}: SQL before the first block; begin with -- name --")
            body.append(line)
            continue
        name = header["name"]
        if NAME.fullmatch(name) is None:
            raise BlockError(f"{file}, line {number}: {name!r} is not a name; use lower case letters, digits and _")
        if name in bodies:
            raise BlockError(f"{file}, line {number}: the block {name} is already in this file; use another name")
        body = bodies[name] = []
    return Blocks(file, {name: _sql(lines, name, file) for name, lines in bodies.items()})


def _sql(lines: list[str], name: str, file: str) -> str:
    length = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    sql = "\n".join(lines[length:]).strip().removesuffix(";").rstrip()
    if not length:
        raise BlockError(f"{file}: the block {name} has no description; say what it does in a comment below its name")
    if not sql:
        raise BlockError(f"{file}: the block {name} has no SQL")
    return sql
