"""What a failed write means, told by its SQLSTATE (PostgreSQL, appendix A)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg

from asgi_analytics.errors import OperatorError, SinkError, TransientError
from asgi_analytics.events.base import snake_case

if TYPE_CHECKING:
    from collections.abc import Container

# Content: the batch holds an event that the table refuses. 22 data exception, 23 integrity constraint violation,
# 54 program limit exceeded (nested too deeply for the server's stack, a row too big).
_POISON_CLASSES = frozenset({"22", "23", "54"})

# Somebody must act: 28 authorization, 3D no such database, 3F no such schema, 42 no such table or no right to it,
# 0A not supported (a licence, a foreign server), XX internal error (corruption), 26 and 34 are pooled connections
# that lost their prepared statements, and those are transient.
_OPERATOR_CLASSES = frozenset({"28", "3D", "3F", "42", "0A", "XX", "F0", "HV"})

# Exceptions from the rules above.
_TRANSIENT: Container[str] = frozenset({
    "42P07", "42710",  # somebody migrates at this moment
    "0A000:cached statement plan is invalid due to a database schema or configuration change",
})  # fmt: skip


def is_poison(error: BaseException) -> bool:
    """Tell whether the content of the batch was refused, so that its good events can be stored without the bad."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate)[:2] in _POISON_CLASSES


def condition(error: asyncpg.PostgresError) -> str:
    """Return a refusal's name, such as ``check_violation analytics_events_timestamp_check``: no value is in it."""
    name = snake_case(type(error).__name__.removesuffix("Error"))
    return f"{name} {error.constraint_name}" if getattr(error, "constraint_name", None) else name


def sink_error(error: BaseException) -> SinkError:
    """Return what the worker has to know of a failed write; the message names the cause and, if need be, the cure.

    It holds the server's primary message, never its detail, which may quote the row, and no connection string.
    """
    if isinstance(error, asyncpg.PostgresError):
        code = str(error.sqlstate)
        said = f"{error.args[0] if error.args else type(error).__name__} ({code})"
        if (
            code[:2] in _OPERATOR_CLASSES
            and code not in _TRANSIENT
            and not isinstance(error, asyncpg.InvalidCachedStatementError)
        ):
            return OperatorError(f"{said}: {_cure(code)}")
        return TransientError(said)
    if isinstance(error, asyncio.TimeoutError):
        return TransientError("the database did not answer in time")
    if isinstance(error, OSError):
        return TransientError(f"the database cannot be reached: {error.strerror or type(error).__name__}")
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError):
        return OperatorError(f"the connection settings are wrong: {type(error).__name__}")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return TransientError(f"the connection was lost: {type(error).__name__}")
    return OperatorError(f"{type(error).__name__} while writing")


def _cure(code: str) -> str:
    if code in ("42P01", "3F000", "42703"):
        return "run analytics-migrate all, and check the schema and the search_path"
    if code == "42501":
        return "grant INSERT on analytics_events and analytics_dead_letters to the user"
    if code[:2] == "28":
        return "check the user and the password of the URL"
    if code == "3D000":
        return "create the database, or check its name in the URL"
    return "look at the server's log"
