"""How many rows a query of asyncpg returned or changed: the command tag says so wherever there is one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.queries.statement import Statement


@lru_cache(maxsize=512)
def of_tag(tag: str | bytes) -> int | None:
    """Return the number at the end of a command tag (``INSERT 0 3``); None for one without (``CREATE TABLE``)."""
    text = tag.decode("utf-8", "replace") if isinstance(tag, bytes) else tag
    number = text.rpartition(" ")[2]
    return int(number) if number.isascii() and number.isdigit() else None


def of_status(result: str, statement: Statement, tag: object) -> int | None:
    """Return the rows of a command whose tag is the result."""
    return of_tag(result) if result else None


def of_list(result: list[Any], statement: Statement, tag: bytes | None) -> int | None:
    """Return the rows of a fetch; without a tag, rows that were changed are not known."""
    return of_tag(tag) if tag else of_many(result, statement, None)


def of_row(result: Any, statement: Statement, tag: bytes | None) -> int | None:
    """Return the rows of a fetchrow; without a tag, rows that were changed are not known."""
    return of_tag(tag) if tag else of_many([] if result is None else [result], statement, None)


def of_value(result: Any, statement: Statement, tag: bytes | None) -> int | None:
    """Return the rows of a fetchval; without a tag the server stopped after the one row that was asked for."""
    return of_tag(tag) if tag else 1


def of_many(result: list[Any], statement: Statement, owner: Any) -> int | None:
    """Return the rows of a fetchmany; None where the statement changes rows and returns none."""
    return len(result) if result or statement.is_read else None


def of_last_status(result: Any, statement: Statement, owner: Any) -> int | None:
    """Return the rows of a prepared statement, which keeps the tag; without one the server stopped after one row."""
    tag = owner._last_status
    return of_tag(tag) if tag else 1


def unknown(result: Any, statement: Statement, owner: Any) -> int | None:
    """Return None: of an executemany no tag comes this far."""
    return None
