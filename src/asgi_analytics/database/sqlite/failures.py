"""What an error of SQLite means, as `asgi_analytics.database.failures` tells it of PostgreSQL.

Codes are the primary ones of https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from asgi_analytics.database.failures import Failure, Kind

if TYPE_CHECKING:
    from asgi_analytics.database.sqlite.url import SqliteUrl

MIGRATE = "run analytics-migrate all"


class _Row(NamedTuple):
    kind: Kind
    cause: str
    cure: str = ""


_BY_NAME: dict[str, _Row] = {
    "SQLITE_BUSY": _Row("transient", "{where} is locked by another process"),
    "SQLITE_LOCKED": _Row("transient", "{where} is locked by another connection of this process"),
    "SQLITE_FULL": _Row("transient", "the disk of {where} is full", "make room on it"),
    "SQLITE_IOERR": _Row("transient", "{where} could not be read or written ({code})", "look at the disk"),
    "SQLITE_NOMEM": _Row("transient", "SQLite is out of memory"),
    "SQLITE_INTERRUPT": _Row("transient", "the work on {where} was interrupted"),
    "SQLITE_PROTOCOL": _Row("transient", "{where} is locked by too many processes"),
    "SQLITE_SCHEMA": _Row("transient", "the tables of {where} were changed meanwhile"),
    "SQLITE_READONLY": _Row(
        "operator", "{where} is read-only ({code})", "give the process the right to write the file and its folder"
    ),
    "SQLITE_PERM": _Row("operator", "{where} may not be used", "give the process the right to write the file"),
    "SQLITE_AUTH": _Row("operator", "{where} may not be used", "give the process the right to write the file"),
    "SQLITE_CANTOPEN": _Row(
        "operator",
        "{where} cannot be opened",
        f"{MIGRATE}, which makes it; check the path, and the rights on its folder",
    ),
    "SQLITE_CORRUPT": _Row("operator", "{where} is corrupt ({code})", "restore it from a backup, or sqlite3 .recover"),
    "SQLITE_NOTADB": _Row("operator", "{where} is not an SQLite database", "check the path"),
    "SQLITE_NOLFS": _Row("operator", "{where} is larger than its file system allows", "move it to another one"),
    "SQLITE_CONSTRAINT": _Row("poison", "{said}"),
    "SQLITE_TOOBIG": _Row("poison", "{said}"),
    "SQLITE_MISMATCH": _Row("poison", "{said}"),
}


def explain(error: BaseException, url: SqliteUrl | None) -> Failure:
    """Return what an error means. A message of SQLite never quotes a value, so it may be repeated."""
    where = "the SQLite database" if url is None else str(url)
    said = " ".join(str(error).split())
    code = getattr(error, "sqlite_errorname", None) or ""
    if code in ("", "SQLITE_ERROR") and said.startswith(("no such table", "no such column", "no such view")):
        return Failure(kind="operator", about="statement", cause=f"{where}: {said}", cure=MIGRATE)
    parts = code.split("_")
    row = _BY_NAME.get("_".join(parts[:2]))
    if row is not None:
        cause = row.cause.format(where=where, said=said, code=code)
        return Failure(kind=row.kind, about="statement", cause=cause, cure=row.cure, sqlstate=code)
    if isinstance(error, OSError):
        return Failure(kind="transient", about="connection", cause=f"{where}: {error.strerror or said}")
    kind: Kind = "operator" if isinstance(error, sqlite3.Error) else "transient"
    return Failure(
        kind=kind, about="statement", cause=f"{where}: {said or type(error).__name__}", sqlstate=code or None
    )


def is_missing_schema(error: BaseException) -> bool:
    """Tell whether an error says that a table or a column is not there."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith(("no such table", "no such column"))
