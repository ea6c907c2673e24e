"""The text of what psycopg is asked to run: a string, bytes, or something composed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from asgi_analytics.instrumentation.queries.recorder import not_captured

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.queries.recorder import QueryRecorder
    from asgi_analytics.instrumentation.queries.statement import Statement

_LITERAL, _PARAMETER = "''", "$1"


def watch(recorder: QueryRecorder | None, query: object, context: Any) -> Statement | None:
    """Return what is known of a query that is about to run; None if it is not to be captured. Never raises.

    ``context`` is the cursor or the connection that runs it.
    """
    if recorder is None:
        return None
    try:
        text = text_of(query, context)
    except Exception as error:  # psycopg will say what is wrong with it
        not_captured(error)
        return None
    return recorder.watch(text)


def text_of(query: object, context: Any) -> str | None:
    """Return the SQL text of a query, with an empty literal for each value in it; None for what is not a query.

    Values are not converted: that is for psycopg to do, once.
    """
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode("utf-8", "replace")
    if isinstance(query, sql.Literal):
        return _LITERAL
    if isinstance(query, sql.Composed):
        return "".join(text_of(part, context) or "" for part in query)
    if isinstance(query, sql.Composable):
        return query.as_string(context)  # before psycopg 3.2, an identifier needs a connection
    if hasattr(query, "interpolations"):  # a template string, of Python 3.14
        return "".join(_part_of(part, context) for part in query)  # type: ignore[attr-defined]
    return None


def _part_of(part: object, context: Any) -> str:
    """Return the SQL text of a part of a template string: text, or an interpolation of a value with its format."""
    if isinstance(part, str):
        return part
    value = getattr(part, "value", None)
    match getattr(part, "format_spec", ""):
        case "i" if isinstance(value, str):
            return text_of(sql.Identifier(value), context) or ""
        case "i" | "q":
            return text_of(value, context) or ""
        case "l":
            return _LITERAL
        case _:
            return _PARAMETER
