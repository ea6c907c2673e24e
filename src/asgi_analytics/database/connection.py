"""Open the connection of a migration, and say in one line why that, or a statement, did not work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from asgi_analytics.errors import AnalyticsError, ConfigError, MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.database.url import DatabaseUrl

ANSWER_WITHIN = 10.0
"""Seconds in which a server must answer a connection attempt."""

# A run that was killed leaves its statement running on the server, and with it the lock, unless the server looks.
NOTICE_LOST_CLIENT = "SELECT pg_catalog.set_config('client_connection_check_interval', '2s', false)"


class NoConnection(MigrationError):
    """The database cannot be reached, or does not let this client in."""


async def connect(url: DatabaseUrl, deadline: float | None, tell: Callable[[str], None]) -> Any:
    """Return a connection. A server that is away is asked again until the deadline (monotonic); None asks once.

    Raises `NoConnection` or `ConfigError`.
    """
    pause = 0.1
    told = False
    while True:
        left = 0.0 if deadline is None else deadline - time.monotonic()
        within = min(ANSWER_WITHIN, max(1.0, left)) if left > 0 else ANSWER_WITHIN  # the only attempt has all the time
        try:
            connection = await asyncpg.connect(
                url.dsn,
                timeout=within,
                statement_cache_size=0,
                server_settings={"application_name": "analytics-migrate"},
            )
            break
        except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            if not _may_come(exc) or deadline is None or time.monotonic() + pause > deadline:
                known = explain(exc, url)
                raise known from (None if isinstance(exc, ValueError) else exc)  # which may quote a part of the URL
            if not told:
                told = True
                tell(f"no server yet for {url}; waiting for it")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0)
    with contextlib.suppress(asyncpg.PostgresError):  # before PostgreSQL 14, or a system that cannot look
        await connection.execute(NOTICE_LOST_CLIENT)
    return connection


def _may_come(exc: BaseException) -> bool:
    if isinstance(exc, asyncpg.CannotConnectNowError | asyncpg.TooManyConnectionsError | TimeoutError):
        return True
    if isinstance(exc, asyncpg.ConnectionDoesNotExistError | asyncpg.ConnectionFailureError):
        return True
    return isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) and "SSL upgrade" not in str(exc)


def explain(exc: BaseException, url: DatabaseUrl | None) -> AnalyticsError:
    """Return the error of this package for one of the driver, the system or the server: one line, without a secret."""
    where = str(url) if url is not None else "the database"
    text = " ".join(str(exc).split())
    if url is not None:
        text = url.hide(text)
    if isinstance(exc, asyncpg.InvalidPasswordError):
        return NoConnection(f"wrong user or password for {where}: correct the database URL")
    if isinstance(exc, asyncpg.InvalidAuthorizationSpecificationError):
        if text.startswith("no pg_hba.conf entry") and ("no encryption" in text or "SSL off" in text):
            return NoConnection(
                f"the server does not let in {where} without TLS: add sslmode=require to the database URL, "
                "or an entry to the server's pg_hba.conf"
            )
        return NoConnection(f"the server refuses {where}: {text}; correct the user, or the server's pg_hba.conf")
    if isinstance(exc, asyncpg.InvalidCatalogNameError):
        return NoConnection(f"there is no {where}: create it, or correct the database URL")
    if isinstance(exc, asyncpg.CannotConnectNowError):
        return NoConnection(f"the server of {where} is starting up or shutting down: try again, or use --wait SECONDS")
    if isinstance(exc, asyncpg.TooManyConnectionsError):
        return NoConnection(f"the server has no free connection for {where}: try again, or use --wait SECONDS")
    if isinstance(exc, asyncpg.PostgresError) and not isinstance(exc, asyncpg.PostgresConnectionError):
        return MigrationError(f"{where}: {text} ({exc.sqlstate}){_remedy(exc)}")
    if isinstance(exc, ssl.SSLError):
        return NoConnection(f"no TLS with {where}: {text}; set sslmode and sslrootcert in the database URL")
    if "SSL upgrade" in text:
        return NoConnection(f"the server of {where} speaks no TLS: take sslmode out of the database URL")
    if isinstance(exc, socket.gaierror):
        return NoConnection(f"unknown host in {where}: correct the database URL, or use --wait SECONDS")
    if isinstance(exc, TimeoutError):
        return NoConnection(f"no answer from {where} in time: check host, port and firewall, or use --wait SECONDS")
    if isinstance(exc, asyncpg.PostgresConnectionError | ConnectionResetError | asyncpg.ConnectionDoesNotExistError):
        return NoConnection(f"the connection to {where} broke: run again; nothing half-done stays")
    if isinstance(exc, FileNotFoundError | PermissionError) and url is not None and "ssl" in url.dsn:
        return ConfigError("a certificate or key file that the database URL names cannot be read: correct its path")
    if isinstance(exc, OSError):
        return NoConnection(f"no server answers at {where}: start it, correct the database URL, or use --wait SECONDS")
    if isinstance(exc, asyncpg.InterfaceError) and "connection is closed" in text:
        return NoConnection(f"the connection to {where} broke: run again; nothing half-done stays")
    if isinstance(exc, asyncpg.InterfaceError) and any(
        word in text for word in ("ssl", "certificate", "session_attrs")
    ):
        return ConfigError(f"the database URL: {text}")
    if isinstance(exc, asyncpg.InterfaceError) and not isinstance(exc, ValueError):
        return MigrationError(f"{where}: {text}")
    return ConfigError("the database URL cannot be used: expected postgresql://user:password@host:5432/database")


def _remedy(exc: asyncpg.PostgresError) -> str:
    if isinstance(exc, asyncpg.InsufficientPrivilegeError):
        return (
            ": as the owner or a superuser GRANT what is missing (CREATE and USAGE on the schema, CREATE on the "
            "database for a new schema), or migrate as the owner of the tables"
        )
    if exc.sqlstate == "25006":
        return ": this server is a read-only standby; use the URL of the primary"
    if exc.sqlstate == "42704" and "configuration parameter" in str(exc):
        return ": take that parameter out of the database URL"
    if str(exc.sqlstate).startswith("57P"):
        return ": run again; nothing half-done stays"
    if exc.sqlstate in ("53100", "53200"):
        return ": make room on the server, then run again"
    return ""
