"""How many rows a query of asyncpg returned or changed: the command tag says so, if there is one."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import asyncpg.connection

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.queries.statement import Statement


_Connection = asyncpg.connection.Connection


class TaggedConnection:
    """Stands for a connection while one of asyncpg's own methods runs, and keeps the command tag of its query.

    The method asks for the rows only; asyncpg would throw the tag away.
    """

    __slots__ = ("connection", "tag")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.tag: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        """Return what the connection has."""
        return getattr(self.connection, name)

    async def _execute(self, *args: Any, **kwargs: Any) -> Any:
        answer = await self.connection._execute(*args, return_status=True, **kwargs)
        if type(answer) is not tuple:
            return answer
        self.tag = answer[1]
        return answer[0]


def can_be_tagged(method: Any) -> bool:
    """Tell whether a method is asyncpg's own: it passes its query to ``_execute``, and its connection to nothing."""
    parameters = inspect.signature(_Connection._execute).parameters.values()
    knows_tags = any(p.name == "return_status" or p.kind is p.VAR_KEYWORD for p in parameters)
    return knows_tags and getattr(method, "__globals__", None) is vars(asyncpg.connection)


def tagged(connection: Any) -> Any:
    """Return what stands for a connection; the connection itself, if its class has an ``_execute`` of its own."""
    execute = getattr(type(connection), "_execute", None)
    return TaggedConnection(connection) if execute is _Connection._execute else connection


@lru_cache(maxsize=512)
def of_tag(tag: str | bytes) -> int | None:
    """Return the number at the end of a command tag (``INSERT 0 3``); None for one without (``CREATE TABLE``)."""
    text = tag.decode("utf-8", "replace") if isinstance(tag, bytes) else tag
    number = text.rpartition(" ")[2]
    return int(number) if number.isascii() and number.isdigit() else None


def of_status(result: str, statement: Statement, source: object) -> int | None:
    """Return the rows of a command whose result is the tag."""
    return of_tag(result) if result else None


def of_list(result: list[Any], statement: Statement, caller: Any) -> int | None:
    """Return the rows of a fetch; without a tag, rows that were changed are not known."""
    tag = caller.tag if type(caller) is TaggedConnection else None
    return of_tag(tag) if tag else of_many(result, statement, None)


def of_row(result: Any, statement: Statement, caller: Any) -> int | None:
    """Return the rows of a fetchrow; without a tag, rows that were changed are not known."""
    return of_list([] if result is None else [result], statement, caller)


def of_value(result: Any, statement: Statement, caller: Any) -> int | None:
    """Return the rows of a fetchval; without a tag, whether NULL came or nothing is not known."""
    if type(caller) is not TaggedConnection:
        return 1 if result is not None and statement.is_read else None
    return of_tag(caller.tag) if caller.tag else 1  # the server stopped after the one row that was asked for


def of_many(result: list[Any], statement: Statement, source: object) -> int | None:
    """Return the rows of a fetchmany; None if the statement changes rows and returns none."""
    return len(result) if result or statement.is_read else None


def of_last_status(result: Any, statement: Statement, prepared: Any) -> int | None:
    """Return the rows of a prepared statement, which keeps the tag; without one the server stopped after one row."""
    tag = prepared._last_status
    return of_tag(tag) if tag else 1


def unknown(result: Any, statement: Statement, source: object) -> int | None:
    """Return None: no tag of an executemany comes this far."""
    return None
