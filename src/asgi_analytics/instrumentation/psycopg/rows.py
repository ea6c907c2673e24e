"""How many rows a query of psycopg returned or changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_analytics.instrumentation.queries.statement import Statement


def of_cursor(cursor: Any, statement: Statement, source: object) -> int | None:
    """Return the rows of what a cursor has run: of all its results together, if it has several."""
    if len(cursor._results) > 1:
        return of_results(cursor._results)
    count: int = cursor.rowcount
    return count if count >= 0 else None


def of_results(results: Sequence[Any]) -> int | None:
    """Return the rows of results of the server; None if no command of theirs has any."""
    counts = [result.command_tuples for result in results]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
