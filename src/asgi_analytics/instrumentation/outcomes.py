"""How a request ended: by an exception that nobody handles, a cancellation, or a client that left."""

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
_LONGEST_CHAIN = 5


def outcome_of(exc: BaseException, send_error: OSError | None) -> str:
    """Return error, disconnected or cancelled for what an application raised; of a group, the gravest.

    ``send_error`` is what the server's ``send`` raised: the client has left.
    """
    kinds = {_outcome_of_one(one, send_error) for one in leaves(exc)}
    return "error" if "error" in kinds else "disconnected" if "disconnected" in kinds else "cancelled"


def _outcome_of_one(exc: BaseException, send_error: OSError | None) -> str:
    if isinstance(exc, asyncio.CancelledError):
        return "cancelled"
    names = {cls.__name__ for cls in type(exc).__mro__}
    if names & _DISCONNECTS or (send_error is not None and any(one is send_error for one in _with_causes(exc))):
        return "disconnected"
    return "cancelled" if names & _CANCELLATIONS else "error"


def _with_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from: frameworks dress up a server's OSError."""
    one: BaseException | None = exc
    for _ in range(_LONGEST_CHAIN):
        if one is None:
            return
        yield one
        one = one.__cause__
