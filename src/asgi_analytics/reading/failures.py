"""What went wrong with a question, as an error of this package: what to do, without SQL or a value of a row."""

from __future__ import annotations

import sqlite3

import asyncpg

from asgi_analytics.database.failures import DRIVER_ERRORS
from asgi_analytics.errors import NoConnection, NotMigrated, QueryTimeout, ReadError

FAILURES = (*DRIVER_ERRORS, sqlite3.Error)
"""What a connection of asyncpg or of sqlite3 raises; `read_error` knows all of them."""

MISSING = ("42P01", "42703", "42883", "3F000")
"""SQLSTATEs of an unknown table, column, function and schema."""
RIGHTS = "42501"
NOT_THERE = ("57P01", "57P02", "57P03", "57P04", "57P05", "53300")
"""SQLSTATEs of a server that shuts down, starts up, or has no free connection."""


TOO_LONG = "no answer within {:g} s: narrow the range, or raise statement_timeout"
NOT_OF_THIS_FORM = "{} lacks a table or view, or has it in an older form: run analytics-migrate all"


def read_error(exc: BaseException, place: str, seconds: float) -> ReadError:
    """Return the error for one of `FAILURES`. ``place`` is the database without its password."""
    if isinstance(exc, sqlite3.Error):
        return _of_sqlite(exc, place, seconds)
    if isinstance(exc, asyncpg.QueryCanceledError):
        return QueryTimeout(TOO_LONG.format(seconds))
    if isinstance(exc, asyncpg.InvalidAuthorizationSpecificationError):  # a wrong password is one too
        return NoConnection(f"{place} does not accept the user or the password: correct the database URL")
    if isinstance(exc, asyncpg.InvalidCatalogNameError):
        return NoConnection(f"{place} does not exist: create it, or correct the database URL")
    if isinstance(exc, asyncpg.PostgresError) and not isinstance(exc, asyncpg.PostgresConnectionError):
        return _refused(exc.sqlstate or "", place)
    if isinstance(exc, TimeoutError):
        return NoConnection(f"{place} does not answer: check the host, the port and the network")
    return NoConnection(f"{place} cannot be reached: start the server, or correct the database URL")


def _refused(sqlstate: str, place: str) -> ReadError:
    if sqlstate in MISSING:
        return NotMigrated(NOT_OF_THIS_FORM.format(place))
    if sqlstate == RIGHTS:
        return ReadError(
            f"the role may not read all tables and views of {place}: run analytics-migrate roles, "
            "then GRANT analytics_reader to the role"
        )
    if sqlstate in NOT_THERE:
        return NoConnection(f"the server of {place} is starting, stopping or full: ask again")
    return ReadError(f"{place} did not answer the question (SQLSTATE {sqlstate}): see the log of the server")


def _of_sqlite(exc: sqlite3.Error, place: str, seconds: float) -> ReadError:
    """Return the error for one of SQLite, whose text names tables and columns at most."""
    code = (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTimeout(TOO_LONG.format(seconds))
    if code == sqlite3.SQLITE_CANTOPEN:
        return NoConnection(f"{place} cannot be opened: run analytics-migrate all to make it, or correct its path")
    if code == sqlite3.SQLITE_NOTADB:
        return NoConnection(f"{place} is not a SQLite database: correct its path")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return NoConnection(f"another process has {place} locked: ask again")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return ReadError(f"{place} may not be written: give the process the right to write the file and its folder")
    if code == sqlite3.SQLITE_ERROR and str(exc).startswith(("no such table", "no such column")):
        return NotMigrated(NOT_OF_THIS_FORM.format(place))
    return ReadError(f"{place} did not answer the question ({getattr(exc, 'sqlite_errorname', 'SQLITE_ERROR')})")
