"""The statements of a subject, in the SQL of each kind of database: one ``.sql`` file of named blocks for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from asgi_analytics.database.blocks import Blocks, load

Dialect = Literal["postgresql", "sqlite"]
"""The SQL of a database: that of both flavours of PostgreSQL, or that of SQLite from 3.35 on."""


class Statement(msgspec.Struct, frozen=True):
    """One statement, written for each kind of database; it takes the same parameters and returns the same columns.

    ``of`` returns its text for one. On SQLite a column that is not an integer, a number or a text names its type, as
    in ``AS "started_at::timestamptz"``; see `asgi_analytics.reading.sqlite_values`.
    """

    of: Callable[[Dialect], str]


class Statements:
    """The statements of a subject: ``overview.sql`` for PostgreSQL, ``sqlite/overview.sql`` for SQLite."""

    def __init__(self, subject: str) -> None:
        self._subject = subject

    def __getitem__(self, name: str) -> Statement:
        """Return a statement by the name of its block."""
        return Statement(lambda dialect: self.blocks(dialect)[name])

    def blocks(self, dialect: Dialect) -> Blocks:
        """Return the blocks for one kind of database, to make a statement of. Raises `BlockError`."""
        folder = "sqlite/" if dialect == "sqlite" else ""
        return load(__package__, f"{folder}{self._subject}.sql")
