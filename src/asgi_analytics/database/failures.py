"""What an error of the driver, the system or the server means: one table for workers, services and commands.

SQLSTATEs are those of PostgreSQL's appendix A. A row for five characters stands before the row for their class.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Literal, NamedTuple

import asyncpg
import msgspec

from asgi_analytics.events.base import snake_case

if TYPE_CHECKING:
    from asgi_analytics.database.url import DatabaseUrl

Kind = Literal["transient", "operator", "poison"]
"""It may pass by itself; it lasts until the operator acts; it is caused by the content of one row."""

Subject = Literal["url", "connection", "statement"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One error, explained."""

    kind: Kind
    about: Subject
    """What is to blame: the database URL, the way to the server, or what was asked of it."""
    cause: str
    """One line, without a secret."""
    cure: str = ""
    """What to do about it, if anything helps but to try again."""
    sqlstate: str | None = None
    is_lost: bool = False
    """The connection is gone: what is safe to repeat may be repeated on another one."""
    is_slow: bool = False
    """Time ran out: less work at once may get through."""

    @property
    def text(self) -> str:
        """The cause and the cure."""
        return f"{self.cause}: {self.cure}" if self.cure else self.cause


DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises when something is wrong with a server or a connection. The last is what it says of a connection
that the server has just ended, too, if it is used before the end of its stream was read."""


class LostTwice(ConnectionError):
    """Two connections in a row were lost during the same work; the second one's error is the ``__cause__``."""


WRITER_RIGHTS = (
    "grant INSERT on analytics_events, analytics_metrics and analytics_dead_letters, and SELECT on their keys, to the "
    "user, as analytics-migrate roles does for its writer"
)
OWNER_RIGHTS = (
    "as the owner or a superuser GRANT what is missing (CREATE and USAGE on the schema, CREATE on the database for a "
    "new schema), or migrate as the owner of the tables"
)
EXTENSION_RIGHTS = "GRANT USAGE on that schema, which TimescaleDB needs, to the user"
MIGRATE = "run analytics-migrate all, and check the schema and the search_path"
POOLER = "behind a transaction pooler, create the pool that is given to the sink with statement_cache_size=0"
PARAMETER = "take that parameter out of the database URL"
NO_TLS = "take sslmode out of the database URL (or ssl, sslaccept, sslrootcert=system), or turn on TLS at the server"
ROOT = "name the file by sslrootcert, or use sslrootcert=system for the certificate authorities of the system"
CERTIFICATE = "check sslmode and sslrootcert in the database URL"
SERVER_LOG = "look at the server's log"


class _Row(NamedTuple):
    kind: Kind
    cause: str = "{said}"
    cure: str = ""
    about: Subject = "statement"
    is_lost: bool = False
    is_slow: bool = False


_BROKE = "the connection to {where} broke ({said})"

_BY_SQLSTATE: dict[str, _Row] = {
    "08": _Row("transient", _BROKE, about="connection", is_lost=True),
    "22": _Row("poison"),
    "23": _Row("poison"),
    "54": _Row("poison"),
    "25006": _Row("transient", cure="this server is a read-only standby; use the URL of the primary"),
    "25P03": _Row("transient", _BROKE, about="connection", is_lost=True, is_slow=True),
    "25P04": _Row("transient", _BROKE, about="connection", is_lost=True, is_slow=True),
    "26": _Row("transient", cure=POOLER),
    "28": _Row(
        "operator",
        "the server refuses {where}: {said}",
        "correct the user, or the server's pg_hba.conf",
        about="connection",
    ),
    "28P01": _Row(
        "operator", "wrong user or password for {where} ({code})", "correct the database URL", about="connection"
    ),
    "3D": _Row(
        "operator", "there is no {where} ({code})", "create it, or correct the database URL", about="connection"
    ),
    "3F": _Row("operator", cure=MIGRATE),
    "42": _Row("operator", cure=SERVER_LOG),
    "42501": _Row("operator", cure="{rights}"),
    "42703": _Row("operator", cure=MIGRATE),
    "42883": _Row("operator", cure=MIGRATE),
    "42P01": _Row("operator", cure=MIGRATE),
    "42P05": _Row("operator", cure=POOLER),
    # Another process migrates at this moment.
    "42P07": _Row("transient"),
    "42710": _Row("transient"),
    "53100": _Row("transient", cure="make room on the server"),
    "53200": _Row("transient", cure="make room on the server"),
    "53300": _Row("transient", "the server has no free connection for {where} ({code})", about="connection"),
    "55P02": _Row("operator", cure=PARAMETER, about="url"),
    "57014": _Row("transient", is_slow=True),
    "57P01": _Row("transient", _BROKE, about="connection", is_lost=True),
    "57P02": _Row("transient", _BROKE, about="connection", is_lost=True),
    "57P03": _Row("transient", "the server of {where} is starting up or shutting down ({code})", about="connection"),
    "57P05": _Row("transient", _BROKE, about="connection", is_lost=True),
    # A licence, a foreign server, a trigger or a function that refuses, a file that is corrupt.
    "0A": _Row("operator", cure=SERVER_LOG),
    "F0": _Row("operator", cure=SERVER_LOG),
    "HV": _Row("operator", cure=SERVER_LOG),
    "P0": _Row("operator", cure=SERVER_LOG),
    "XX": _Row("operator", cure=SERVER_LOG),
}
_OTHER = _Row("transient")
_WITHOUT_TLS = _Row(
    "operator",
    "the server does not let in {where} without TLS",
    "add sslmode=require to the database URL, or an entry to the server's pg_hba.conf",
    about="connection",
)

_SETTINGS = asyncpg.ClientConfigurationError
_TALKATIVE = ("22", "23", "54", "P0", "HV")
"""Classes whose messages quote values, or are written by a trigger or a foreign server."""


def explain(
    error: BaseException,
    url: DatabaseUrl | None = None,
    *,
    rights: str = OWNER_RIGHTS,
    may_quote: bool = True,
) -> Failure:
    """Return what an error means.

    ``url`` names the database in the text, and hides its password there. ``rights`` is the cure if rights are missing.
    Without ``may_quote`` the text holds no message of the server that could quote a row.
    """
    if isinstance(error, LostTwice) and error.__cause__ is not None:
        failure = explain(error.__cause__, url, rights=rights, may_quote=may_quote)
        return msgspec.structs.replace(failure, kind="transient", is_lost=True, is_slow=True)
    where = str(url) if url is not None else "the database"
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, where, url, rights, may_quote=may_quote)
    said = " ".join(str(error).split())
    if url is not None:
        said = url.hide(said)
    return _of_client(error, said, where, url)


def condition(error: asyncpg.PostgresError) -> str:
    """Return the name of the condition and of the broken rule, such as ``check_violation in_range``: no value."""
    rule = getattr(error, "constraint_name", None)
    return f"{condition_name(str(error.sqlstate))} {rule}" if rule else condition_name(str(error.sqlstate))


def condition_name(sqlstate: str) -> str:
    """Return the name of a condition, such as ``check_violation`` for 23514."""
    kind = asyncpg.PostgresError.get_message_class_for_sqlstate(sqlstate)
    return snake_case(kind.__name__.removesuffix("Error"))


def is_poison(error: BaseException) -> bool:
    """Tell whether the content of a row was refused, so that other rows can be stored without it."""
    return isinstance(error, asyncpg.PostgresError) and _row(str(error.sqlstate)).kind == "poison"


def _row(sqlstate: str) -> _Row:
    return _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE.get(sqlstate[:2]) or _OTHER


def _of_server(
    error: asyncpg.PostgresError, where: str, url: DatabaseUrl | None, rights: str, *, may_quote: bool
) -> Failure:
    sqlstate = str(error.sqlstate)
    # The primary message only, never the detail, which shows the row.
    primary = " ".join(str(error.args[0]).split()) if error.args else condition(error)
    message = condition(error) if not may_quote and sqlstate[:2] in _TALKATIVE else primary
    row = _row(sqlstate)
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        row = _OTHER  # the table was changed; the statement is prepared anew
    elif sqlstate == "XX000" and message.startswith("tuple concurrently"):
        row = _OTHER  # another session changed the table's rights, or made a chunk, at the same moment
    elif "unsupported startup parameter" in message:
        row = _Row("operator", cure=f"{PARAMETER}: the pooler in front of the server refuses it", about="url")
    elif sqlstate == "08P01" and "authentication failed" in message:  # as PgBouncer says it
        row = _BY_SQLSTATE["28P01"]
    elif sqlstate == "42704" and "configuration parameter" in message:
        row = _Row("operator", cure=PARAMETER, about="url")
    elif _demands_tls(sqlstate, message):
        row = _WITHOUT_TLS
    elif sqlstate == "42501" and "for schema" in message and "timescaledb" in message:
        row = row._replace(cure=EXTENSION_RIGHTS)
    said = f"{message} ({sqlstate})"
    if url is not None:
        said = url.hide(said)
    return Failure(
        kind=row.kind,
        about=row.about,
        cause=row.cause.replace("{where}", where).replace("{said}", said).replace("{code}", sqlstate),
        cure=row.cure.replace("{rights}", rights),
        sqlstate=sqlstate,
        is_lost=row.is_lost,
        is_slow=row.is_slow,
    )


def _demands_tls(sqlstate: str, message: str) -> bool:
    if sqlstate[:2] == "28":
        return message.startswith("no pg_hba.conf entry") and "no encryption" in message
    return sqlstate == "08P01" and "SSL required" in message  # as PgBouncer says it


def _of_client(error: BaseException, said: str, where: str, url: DatabaseUrl | None) -> Failure:
    def failure(
        kind: Kind, about: Subject, cause: str, cure: str = "", *, is_lost: bool = False, is_slow: bool = False
    ) -> Failure:
        return Failure(kind=kind, about=about, cause=cause, cure=cure, is_lost=is_lost, is_slow=is_slow)

    match error:
        case TimeoutError():
            return failure(
                "transient", "connection", f"no answer from {where} in time", "check host, port and firewall"
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return failure("transient", "connection", f"no TLS with {where}: {said}", is_lost=True)
        case ssl.SSLCertVerificationError():
            cause = f"no TLS with {where}, whose certificate is not trusted: {said}"
            return failure("operator", "connection", cause, CERTIFICATE)
        case ssl.SSLError():
            return failure("operator", "connection", f"no TLS with {where}: {said}", CERTIFICATE)
        case ConnectionError() if "SSL upgrade" in said:
            cause = f"the server of {where} speaks no TLS"
            return failure("operator", "connection", cause, NO_TLS)
        case socket.gaierror():
            cause = f"unknown host in {where}: {error.strerror}"
            return failure("transient", "connection", cause, "correct the database URL")
        case FileNotFoundError() | PermissionError() | IsADirectoryError() if url is not None and "ssl" in url.dsn:
            cause = "a certificate or key file that the database URL names cannot be read"
            return failure("operator", "url", cause, "correct its path")
        case ConnectionResetError() | BrokenPipeError():
            return failure("transient", "connection", f"the connection to {where} broke", is_lost=True)
        case OSError():
            # asyncio's own text repeats the address.
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            cause = f"no server answers at {where}: {why}"
            return failure("transient", "connection", cause, "start it, or correct the database URL")
        case asyncpg.InterfaceError() if "pool is clos" in said:
            return failure("operator", "connection", "the pool that was given to the sink is closed")
        case asyncpg.TargetServerAttributeNotMatched():
            cause = f"no host of {where} is what target_session_attrs asks for"
            return failure("transient", "connection", cause)
        case asyncpg.ClientConfigurationError() if "target_session_attrs" in said:
            cause = "unknown target_session_attrs in the database URL"
            return failure("operator", "url", cause, "use any, primary, standby, read-write, read-only, prefer-standby")
        case asyncpg.ClientConfigurationError() if url is not None and said.startswith("root certificate"):
            return failure("operator", "url", said.partition(" HINT")[0], ROOT)
        case asyncpg.ClientConfigurationError() if url is not None and "ssl" in said:
            return failure("operator", "url", said, CERTIFICATE)
        case asyncpg.InterfaceError() if isinstance(error, ValueError) and not isinstance(error, _SETTINGS):
            return failure("operator", "statement", f"{type(error).__name__} in the database client")
        case asyncpg.ClientConfigurationError() | ValueError():
            cause = f"the database URL cannot be used ({type(error).__name__})"
            return failure("operator", "url", cause, "expected postgresql://user:password@host:5432/database")
        case asyncpg.InterfaceError() | asyncpg.InternalClientError():
            cause = f"the connection to {where} was lost ({type(error).__name__})"
            return failure("transient", "connection", cause, is_lost=True)
    return failure("operator", "statement", f"{type(error).__name__} in the database client")
