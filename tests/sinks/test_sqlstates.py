"""What a failed write means, by its SQLSTATE: wait, call somebody, or find the poison."""

from __future__ import annotations

import errno
import ssl

import asyncpg
import pytest

from asgi_analytics.errors import OperatorError, SinkError, TransientError
from asgi_analytics.sinks.sqlstates import Refusal, is_poison, sink_error

SECRET = "hunter2"


def postgres_error(sqlstate: str, message: str = "it failed") -> asyncpg.PostgresError:
    fields = {"S": "ERROR", "C": sqlstate, "M": message, "D": f"Failing row contains ({SECRET}).", "n": "a_constraint"}
    error: asyncpg.PostgresError = asyncpg.PostgresError.new(fields)
    return error


TRANSIENT = [
    "08000", "08003", "08006", "08P01",  # the connection
    "40001", "40P01",  # serialization, deadlock
    "53000", "53100", "53200", "53300", "53400",  # disk full, out of memory, too many connections
    "55006", "55P03",  # in use, lock not available
    "57000", "57014", "57P01", "57P02", "57P03", "57P05",  # cancelled, shutting down, starting up, idle
    "58000", "58030",  # I/O of the server
    "25006", "25P02", "25P03", "26000",  # read-only after a failover, a pooler that lost a statement
    "42P07", "42710",  # somebody migrates
    "99999",
]  # fmt: skip
OPERATOR = [
    "28000", "28P01", "3D000", "3F000",
    "42P01", "42501", "42703", "42883", "42601", "42P05", "42804",
    "0A000", "P0001", "XX000", "XX001", "XX002", "F0000", "HV000",
]  # fmt: skip
POISON = [
    "22000",
    "22001",
    "22003",
    "22007",
    "22008",
    "22021",
    "22P02",
    "22P05",
    "23502",
    "23505",
    "23514",
    "54000",
    "54001",
]


@pytest.mark.parametrize("sqlstate", TRANSIENT)
def test_what_may_pass_is_transient(sqlstate: str) -> None:
    error = postgres_error(sqlstate)
    assert not is_poison(error)
    assert type(sink_error(error)) is TransientError
    assert f"({sqlstate})" in str(sink_error(error))


@pytest.mark.parametrize("sqlstate", OPERATOR)
def test_what_somebody_must_mend_says_what_to_do(sqlstate: str) -> None:
    error = postgres_error(sqlstate)
    assert not is_poison(error)
    assert type(sink_error(error)) is OperatorError
    said = Refusal.by(error).reason if sqlstate in ("P0001", "HV000") else "it failed"
    assert str(sink_error(error)).startswith(f"{said} ({sqlstate}): ")


@pytest.mark.parametrize("sqlstate", [*POISON, "P0001", "HV000"])
def test_a_message_that_may_quote_a_value_is_not_repeated(sqlstate: str) -> None:
    assert SECRET not in str(sink_error(postgres_error(sqlstate, f"value {SECRET} is refused")))


@pytest.mark.parametrize(
    ("sqlstate", "cure"),
    [
        ("42P01", "run analytics-migrate all"),
        ("42501", "grant INSERT"),
        ("28P01", "check the user and the password"),
        ("3D000", "create the database"),
        ("42P05", "statement_cache_size=0"),
        ("XX001", "look at the server's log"),
    ],
)
def test_a_cure_is_named(sqlstate: str, cure: str) -> None:
    assert cure in str(sink_error(postgres_error(sqlstate)))


@pytest.mark.parametrize("sqlstate", POISON)
def test_what_the_content_caused_is_poison_with_a_short_stable_name(sqlstate: str) -> None:
    error = postgres_error(sqlstate, f"value {SECRET} is refused")
    assert is_poison(error)
    assert SECRET not in Refusal.by(error).reason
    assert Refusal.by(error).reason.endswith("_violation a_constraint" if sqlstate[:2] == "23" else " a_constraint")


def test_a_changed_table_is_no_reason_to_call_somebody() -> None:
    error = asyncpg.InvalidCachedStatementError("cached statement plan is invalid")
    error.sqlstate = "0A000"
    assert type(sink_error(error)) is TransientError


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), TransientError, "Connection refused"),
        (ConnectionResetError(), TransientError, "ConnectionResetError"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), TransientError, "Network is unreachable"),
        (ssl.SSLEOFError(8, "EOF occurred"), TransientError, "EOF occurred"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), OperatorError, "check sslmode"),
        (TimeoutError(), TransientError, "did not answer in time"),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), TransientError, "lost"),
        (asyncpg.InterfaceError("pool is closed"), OperatorError, "the pool that was given to the sink is closed"),
        (asyncpg.InterfaceError("pool is closing"), OperatorError, "closed"),
        (asyncpg.ClientConfigurationError(f"invalid dsn {SECRET}"), OperatorError, "connection settings are wrong"),
        (ValueError(SECRET), OperatorError, "connection settings are wrong: ValueError"),
        (RuntimeError(SECRET), OperatorError, "RuntimeError while writing"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_that_are_not_the_servers_are_told_apart(error: Exception, kind: type[SinkError], said: str) -> None:
    assert not is_poison(error)
    assert type(sink_error(error)) is kind
    assert said in str(sink_error(error))
    assert SECRET not in str(sink_error(error))


def test_only_what_a_smaller_write_may_mend_asks_for_fewer_events() -> None:
    asks = {code for code in TRANSIENT if getattr(sink_error(postgres_error(code)), "fewer", False)}
    assert asks == {"57014"}


def test_neither_details_nor_rows_are_quoted() -> None:
    for sqlstate in (*TRANSIENT, *OPERATOR):
        assert SECRET not in str(sink_error(postgres_error(sqlstate)))
