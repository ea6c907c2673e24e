"""What a failed write means, told by its SQLSTATE (PostgreSQL, appendix A)."""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple, Self

import asyncpg

from asgi_analytics.errors import OperatorError, SinkError, TransientError
from asgi_analytics.events.base import snake_case

# Content: the batch holds an event that the table refuses. 22 data exception, 23 integrity constraint violation,
# 54 program limit exceeded (nested too deeply for the server's stack, a row too big).
_POISON_CLASSES = frozenset({"22", "23", "54"})

# Somebody must act: 28 authorization, 3D no such database, 3F no such schema, 42 no such table or no right to it,
# 0A not supported (a licence, a foreign server), P0 a trigger or function that refuses, XX internal error (corruption).
# All others are transient, also 26, a pooled connection that lost its prepared statements.
_OPERATOR_CLASSES = frozenset({"28", "3D", "3F", "42", "0A", "P0", "XX", "F0", "HV"})

# Their messages quote values, or are whatever a trigger, or a foreign server, says.
_TALKATIVE = _POISON_CLASSES | {"P0", "HV"}

# Somebody migrates at this moment.
_TRANSIENT = frozenset({"42P07", "42710"})

RIGHTS = (
    "grant INSERT on analytics_events and analytics_dead_letters, and SELECT on their keys, to the user: what the "
    "writer has that analytics-migrate roles makes"
)


def is_poison(error: BaseException) -> bool:
    """Tell whether the content of the batch was refused, so that its good events can be stored without the bad."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate)[:2] in _POISON_CLASSES


class Refusal(NamedTuple):
    """Why an event was refused: no value of the event is in it."""

    reason: str
    """The condition's name, such as ``check_violation analytics_events_timestamp_range``."""
    sqlstate: str

    @classmethod
    def of(cls, sqlstate: str, constraint: str | None = None) -> Self:
        """Return the refusal that the server would answer with."""
        kind = asyncpg.PostgresError.get_message_class_for_sqlstate(sqlstate)
        name = snake_case(kind.__name__.removesuffix("Error"))
        return cls(f"{name} {constraint}" if constraint else name, sqlstate)

    @classmethod
    def by(cls, error: asyncpg.PostgresError) -> Self:
        """Return the refusal that the server answered with."""
        return cls.of(str(error.sqlstate), getattr(error, "constraint_name", None))


def sink_error(error: BaseException) -> SinkError:
    """Return what the worker has to know of a failed write; the message names the cause and, if need be, the cure.

    It holds the server's primary message where that quotes no value, never its detail, and no connection string.
    """
    if isinstance(error, asyncpg.PostgresError):
        code = str(error.sqlstate)
        is_quiet = error.args and code[:2] not in _TALKATIVE
        said = f"{error.args[0] if is_quiet else Refusal.by(error).reason} ({code})"
        if (
            code[:2] in _OPERATOR_CLASSES
            and code not in _TRANSIENT
            and not isinstance(error, asyncpg.InvalidCachedStatementError)
        ):
            return OperatorError(f"{said}: {_cure(code)}")
        return TransientError(said, fewer=code == "57014")  # statement_timeout of the server
    if isinstance(error, asyncio.TimeoutError):
        return TransientError("the database did not answer in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return OperatorError("the server's certificate is not trusted: check sslmode and sslrootcert of the URL")
    if isinstance(error, OSError):
        return TransientError(f"the database cannot be reached: {error.strerror or type(error).__name__}")
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError):
        return OperatorError(f"the connection settings are wrong: {type(error).__name__}")
    if isinstance(error, asyncpg.InterfaceError) and "pool is clos" in str(error):
        return OperatorError("the pool that was given to the sink is closed")
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return TransientError(f"the connection was lost: {type(error).__name__}")
    return OperatorError(f"{type(error).__name__} while writing")


def _cure(code: str) -> str:
    if code in ("42P01", "3F000", "42703"):
        return "run analytics-migrate all, and check the schema and the search_path"
    if code == "42501":
        return RIGHTS
    if code[:2] == "28":
        return "check the user and the password of the URL"
    if code == "42P05":
        return "behind a pooler of transactions, give the sink a pool of your own with statement_cache_size=0"
    if code == "3D000":
        return "create the database, or check its name in the URL"
    return "look at the server's log"
