"""What an error means: it passes by itself, it waits for the operator, or one row is to blame."""

from __future__ import annotations

import errno
import socket
import ssl

import asyncpg
import pytest
from asyncpg.exceptions._base import DataError as AsyncpgDataError

from asgi_analytics.database.failures import LostTwice, condition, explain, is_poison
from asgi_analytics.database.url import read_dsn

SECRET = "hunter2"
URL = read_dsn(f"postgresql://joe:{SECRET}@db/shop?sslmode=verify-full&sslrootcert=/etc/ca.pem")


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
    "25006", "25P02", "25P03", "25P04",  # read-only after a failover, timeouts
    "26000",  # a connection that lost its prepared statements
    "42P07", "42710",  # another process migrates
    "99999",
]  # fmt: skip
OPERATOR = [
    "28000", "28P01", "3D000", "3F000",
    "42P01", "42501", "42703", "42883", "42601", "42P05", "42804", "55P02",
    "0A000", "P0001", "XX000", "XX001", "XX002", "F0000", "HV000",
]  # fmt: skip
POISON = [
    "22000", "22001", "22003", "22007", "22008", "22021", "22P02", "22P05",
    "23502", "23505", "23514",
    "54000", "54001",
]  # fmt: skip


@pytest.mark.parametrize("sqlstate", TRANSIENT)
def test_what_may_pass_is_transient(sqlstate: str) -> None:
    failure = explain(postgres_error(sqlstate))
    assert failure.kind == "transient"
    assert f"({sqlstate})" in failure.cause


@pytest.mark.parametrize("sqlstate", OPERATOR)
def test_what_lasts_until_the_operator_acts_says_what_to_do(sqlstate: str) -> None:
    failure = explain(postgres_error(sqlstate))
    assert failure.kind == "operator"
    assert f"({sqlstate})" in failure.cause
    assert failure.cure
    assert failure.text == f"{failure.cause}: {failure.cure}"


@pytest.mark.parametrize("sqlstate", POISON)
def test_what_the_content_caused_is_poison_with_a_short_stable_name(sqlstate: str) -> None:
    error = postgres_error(sqlstate, f"value {SECRET} is refused")
    assert is_poison(error)
    assert explain(error).kind == "poison"
    assert SECRET not in condition(error)
    assert condition(error).endswith("_violation a_constraint" if sqlstate[:2] == "23" else " a_constraint")


def test_only_the_content_is_poison() -> None:
    assert not any(is_poison(postgres_error(sqlstate)) for sqlstate in (*TRANSIENT, *OPERATOR))
    assert not is_poison(ValueError())


@pytest.mark.parametrize("sqlstate", [*POISON, "P0001", "HV000"])
def test_a_message_that_may_quote_a_row_is_left_out_on_request(sqlstate: str) -> None:
    error = postgres_error(sqlstate, f"value {SECRET} is refused")
    assert SECRET not in explain(error, may_quote=False).text
    assert SECRET in explain(error).text


@pytest.mark.parametrize(
    ("sqlstate", "message", "cure"),
    [
        ("42P01", 'relation "x" does not exist', "run analytics-migrate all"),
        ("42501", "permission denied for table x", "as the owner or a superuser GRANT what is missing"),
        ("42501", "permission denied for schema _timescaledb_functions", "GRANT USAGE on that schema"),
        ("28P01", "password authentication failed", "correct the database URL"),
        ("08P01", "SASL authentication failed", "correct the database URL"),
        ("28000", 'no pg_hba.conf entry for host "h", no encryption', "add sslmode=require"),
        ("3D000", 'database "x" does not exist', "create it"),
        ("42P05", 'prepared statement "x" already exists', "statement_cache_size=0"),
        ("26000", 'prepared statement "x" does not exist', "statement_cache_size=0"),
        ("08P01", "unsupported startup parameter: options", "take that parameter out of the database URL"),
        ("42704", 'unrecognized configuration parameter "x"', "take that parameter out of the database URL"),
        ("55P02", 'parameter "x" cannot be changed now', "take that parameter out of the database URL"),
        ("25006", "cannot execute INSERT in a read-only transaction", "use the URL of the primary"),
        ("53100", "could not extend file", "make room on the server"),
        ("XX001", "invalid page", "look at the server's log"),
    ],
)
def test_a_cure_is_named(sqlstate: str, message: str, cure: str) -> None:
    assert cure in explain(postgres_error(sqlstate, message)).cure


def test_the_rights_that_are_missing_are_those_of_the_caller() -> None:
    assert explain(postgres_error("42501"), rights="grant INSERT").cure == "grant INSERT"


def test_a_table_that_was_changed_under_a_statement_is_transient() -> None:
    error = asyncpg.InvalidCachedStatementError("cached statement plan is invalid")
    error.sqlstate = "0A000"
    assert explain(error).kind == "transient"


def test_a_table_whose_rights_another_session_changed_at_the_same_moment_is_transient() -> None:
    assert explain(postgres_error("XX000", "tuple concurrently updated")).kind == "transient"
    assert explain(postgres_error("XX000", "cache lookup failed for relation 1")).kind == "operator"


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "transient", "no server answers at"),
        (ConnectionResetError(), "transient", "broke"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "transient", "Network is unreachable"),
        (socket.gaierror(-2, "Name or service not known"), "transient", "unknown host"),
        (TimeoutError(), "transient", "no answer from"),
        (ssl.SSLEOFError(8, "EOF occurred"), "transient", "EOF occurred"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "operator", "check sslmode and sslrootcert"),
        (ssl.SSLError(1, "tlsv1 alert unknown ca"), "operator", "check sslmode and sslrootcert"),
        (ConnectionError("PostgreSQL server rejected SSL upgrade"), "operator", "take sslmode out"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "operator", "correct its path"),
        (asyncpg.InterfaceError("cannot perform operation: another is in progress"), "transient", "was lost"),
        (asyncpg.InterfaceError("pool is closed"), "operator", "the pool that was given to the sink is closed"),
        (asyncpg.InterfaceError("pool is closing"), "operator", "is closed"),
        (asyncpg.TargetServerAttributeNotMatched("none"), "transient", "target_session_attrs"),
        (asyncpg.ClientConfigurationError(f"root certificate file {SECRET}"), "operator", "root certificate file ***"),
        (asyncpg.ClientConfigurationError(f"invalid dsn {SECRET}"), "operator", "cannot be used"),
        (ValueError(SECRET), "operator", "cannot be used (ValueError): expected postgresql://"),
        (AsyncpgDataError(SECRET), "operator", "DataError in the database client"),
        (RuntimeError(SECRET), "operator", "RuntimeError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_that_are_not_the_servers_are_told_apart(error: Exception, kind: str, says: str) -> None:
    failure = explain(error, URL)
    assert failure.kind == kind
    assert says in failure.text
    assert SECRET not in failure.text
    assert SECRET not in explain(error).text


def test_a_missing_file_is_not_an_outage_because_the_url_has_a_certificate() -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file or directory")  # a socket's, without a certificate in the URL
    assert explain(error, read_dsn("postgresql://db/shop?host=/run/postgresql")).kind == "transient"


def test_a_lost_connection_is_worth_another_one() -> None:
    lost = {code for code in (*TRANSIENT, *OPERATOR) if explain(postgres_error(code)).is_lost}
    assert lost == {"08000", "08003", "08006", "08P01", "25P03", "25P04", "57P01", "57P02", "57P05"}


def test_whatever_ends_by_time_asks_for_less_at_once() -> None:
    slow = {code for code in (*TRANSIENT, *OPERATOR) if explain(postgres_error(code)).is_slow}
    assert slow == {"25P03", "25P04", "57014"}


def test_what_is_lost_twice_asks_for_less_at_once_whatever_lost_it() -> None:
    for cause in (ConnectionResetError(), postgres_error("57P01")):
        error = LostTwice()
        error.__cause__ = cause
        failure = explain(error)
        assert (failure.kind, failure.is_slow) == ("transient", True)
        assert failure.cause == explain(cause).cause


def test_neither_details_nor_rows_are_quoted() -> None:
    for sqlstate in (*TRANSIENT, *OPERATOR, *POISON):
        assert SECRET not in explain(postgres_error(sqlstate)).text


def test_the_place_is_named_and_the_password_is_hidden() -> None:
    failure = explain(postgres_error("28000", f"something about {SECRET}"), URL)
    assert 'database "shop" on db as "joe"' in failure.text
    assert SECRET not in failure.text
