"""How a request or a query ended: errors, cancellations, timeouts and clients that left, told apart in one place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asgi_analytics.exceptions import leaves

if TYPE_CHECKING:
    from collections.abc import Iterator

# By their names: the packages that define them may not be installed.
_CANCELLATIONS = frozenset({"CancelledError", "Cancelled", "GeneratorExit", "KeyboardInterrupt"})
_DISCONNECTS = frozenset(
    {"ClientDisconnect", "WebSocketDisconnect", "ClientDisconnected", "ClientDisconnectedError", "RequestAborted"}
)
_MOST_CAUSES = 5
_QUERY_CANCELED, _LOCK_NOT_AVAILABLE = "57014", "55P03"


def request_outcome(exc: BaseException, send_error: OSError | None = None) -> str:
    """Return error, disconnected or cancelled for what an application raised; for a group, the gravest.

    ``send_error`` is what the server's ``send`` raised, because the client has left.
    """
    outcomes = {_outcome_of_one(one, send_error) for one in leaves(exc)}
    return "error" if "error" in outcomes else "disconnected" if "disconnected" in outcomes else "cancelled"


def query_outcome(error: BaseException) -> str:
    """Return cancelled, timeout or error; a query that the server cancelled timed out if the message says so."""
    if _is_cancellation(error):
        return "cancelled"
    if isinstance(error, TimeoutError):
        return "timeout"
    sqlstate = sqlstate_of(error)
    if sqlstate in (_QUERY_CANCELED, _LOCK_NOT_AVAILABLE) and "timeout" in str(error):
        return "timeout"
    return "cancelled" if sqlstate == _QUERY_CANCELED else "error"


def sqlstate_of(error: BaseException) -> str | None:
    """Return the server's five-character code of an error, as asyncpg and psycopg keep it; None if it has none."""
    sqlstate = getattr(error, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None


def _is_cancellation(exc: BaseException) -> bool:
    return isinstance(exc, asyncio.CancelledError) or not _CANCELLATIONS.isdisjoint(_names(exc))


def _outcome_of_one(exc: BaseException, send_error: OSError | None) -> str:
    if not _DISCONNECTS.isdisjoint(_names(exc)):
        return "disconnected"
    if send_error is not None and any(one is send_error for one in _with_causes(exc)):
        return "disconnected"
    return "cancelled" if _is_cancellation(exc) else "error"


def _names(exc: BaseException) -> list[str]:
    return [cls.__name__ for cls in type(exc).__mro__]


def _with_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes: frameworks wrap the server's OSError."""
    one: BaseException | None = exc
    for _ in range(_MOST_CAUSES):
        if one is None:
            return
        yield one
        one = one.__cause__
