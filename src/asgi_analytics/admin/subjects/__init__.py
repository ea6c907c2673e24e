"""What is done for a person who asks: export what is stored, anonymise it, or erase it. ``analytics-subject``."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from asgi_analytics.admin.subjects.anonymous import personal_fields
from asgi_analytics.admin.subjects.mentions import Mentions
from asgi_analytics.admin.subjects.places import PLACES
from asgi_analytics.admin.subjects.report import (
    Exported as Exported,
)
from asgi_analytics.admin.subjects.report import (
    Kind,
)
from asgi_analytics.admin.subjects.report import (
    Mention as Mention,
)
from asgi_analytics.admin.subjects.report import (
    Request as Request,
)
from asgi_analytics.admin.subjects.report import (
    RequestsReport as RequestsReport,
)
from asgi_analytics.admin.subjects.report import (
    SubjectExport as SubjectExport,
)
from asgi_analytics.admin.subjects.report import (
    SubjectReport as SubjectReport,
)
from asgi_analytics.admin.subjects.sqlite import SqliteConnection, SqliteWork, open_sqlite
from asgi_analytics.admin.subjects.subject import Subject
from asgi_analytics.admin.subjects.work import (
    SQL,
    Work,
    complete_request,
    find_tables,
    keyed_hash,
    open_request,
    request_of,
)
from asgi_analytics.database.blocks import load
from asgi_analytics.database.names import quoted
from asgi_analytics.database.sqlite.url import is_sqlite, read_sqlite_url
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate import sqlite
from asgi_analytics.migrate.session import open_session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from typing import Unpack

    from asgi_analytics.events.base import UserId
    from asgi_analytics.migrate.session import Options, Session

ROUNDS = 5
"""How often all places are gone through, while something of the person is found there afterwards."""

MOST_REQUESTS = 1_000
"""How many requests `status` lists."""

REFRESH = "The numbers of the aggregates follow when they are refreshed: by themselves, or by analytics-migrate refresh"
NO_SPOOL = "No spool was looked at: name its folder with --spool or ANALYTICS_SPOOL, if there is one"


class _Opened(NamedTuple):
    connection: Any
    work: type[Work]
    """What goes through the places of this database."""
    tell: Callable[[str], None]
    about: Mapping[str, Any]
    """The fields that every report has."""


async def erase(
    target: str | asyncpg.Connection, user: UserId, *, spool: str | Path | None = None, **options: Unpack[Options]
) -> SubjectReport:
    """Delete every row that holds a person; the numbers of the aggregates follow with the next refresh.

    ``user`` is the id as the application says it: a UUID, str or int. ``spool`` is the folder of the spool. The other
    arguments are those of `migrate`. It works a day and a transaction at a time, beside writers, and may be interrupted
    and repeated. Rows of others that quote the id are listed in the report, and left as they are. An SQLite file is
    written anew at the end. Raises `MigrationError` without the rights of the tables' owner, if events of the person
    keep coming, or if another process keeps the file from being written anew, `ConfigError` for what cannot be a user
    or a folder, and as `migrate` does.
    """
    return await _forget(target, user, "erase", spool, options)


async def anonymise(
    target: str | asyncpg.Connection, user: UserId, *, spool: str | Path | None = None, **options: Unpack[Options]
) -> SubjectReport:
    """Take a person out of the rows that hold them, and keep the rows.

    They lose ``user_id``, ``session_id``, ``visitor`` and ``user_key``, members whose names say that they hold an
    e-mail, phone, address, IP address or user agent, ``Personal`` fields of every event class that is imported, and
    the id itself wherever it stands. Arguments, report and errors are those of `erase`.
    """
    return await _forget(target, user, "anonymise", spool, options)


async def export(
    target: str | asyncpg.Connection, user: UserId, *, spool: str | Path | None = None, **options: Unpack[Options]
) -> SubjectExport:
    """Return all that is stored of a person, in memory; `stream` does without. Arguments and errors as of `erase`."""
    tables: dict[str, list[Any]] = {}
    async with _opened(target, options) as opened:
        work = await _begin(opened, user, "export", spool)
        async for one in _export(work):
            tables.setdefault(one.table, []).append(one.row)
        request = await complete_request(work.connection, work.request, work.sql)
        return SubjectExport(user_id=work.subject.uuid, tables=tables, request=request, warnings=tuple(work.warnings))


async def stream(
    target: str | asyncpg.Connection, user: UserId, *, spool: str | Path | None = None, **options: Unpack[Options]
) -> AsyncGenerator[Exported]:
    """Yield all that is stored of a person, row by row, table after table. Arguments and errors as of `erase`."""
    async with _opened(target, options) as opened:
        work = await _begin(opened, user, "export", spool)
        async for one in _export(work):
            yield one
        await complete_request(work.connection, work.request, work.sql)
        for warning in work.warnings:
            opened.tell(f"warning: {warning}")


async def status(
    target: str | asyncpg.Connection, user: UserId | None = None, **options: Unpack[Options]
) -> RequestsReport:
    """Return the requests that are logged, newest first, at most 1,000; those of one person if ``user`` is given.

    The log has no id: who it was can be told only of a user that is named. The other arguments are those of `migrate`.
    Raises as `erase` does.
    """
    async with _opened(target, options) as opened:
        connection, sql = opened.connection, opened.work.sql
        hashed = None if user is None else await keyed_hash(connection, Subject(user), sql)
        found = await connection.fetch(sql["requests"], hashed, MOST_REQUESTS)
        return RequestsReport(**opened.about, requests=tuple(map(request_of, found)))


async def _forget(
    target: str | asyncpg.Connection, user: UserId, kind: Kind, spool: str | Path | None, options: Options
) -> SubjectReport:
    async with _opened(target, options) as opened:
        about = opened.about
        work = await _begin(opened, user, kind, spool)
        mentions = Mentions()
        for _ in range(ROUNDS):
            for place in PLACES:
                await (place.erase if kind == "erase" else place.anonymise)(work)
            await mentions.find(work)
            if not mentions.is_left:
                break
        else:
            raise MigrationError(
                "there is always something new of this person: stop giving the id, in set_user() or before_track, and "
                "run this again"
            )
        await work.refresh_statistics()
        await work.overwrite()
        request = await complete_request(work.connection, work.request, work.sql)
        return SubjectReport(
            **{
                **about,
                "warnings": (*about["warnings"], *dict.fromkeys(work.warnings)),
                "notes": (*about["notes"], REFRESH, *([NO_SPOOL] if spool is None else [])),
            },
            request=request,
            mentions=tuple(mentions.listed),
            more_mentions=mentions.more,
        )


async def _export(work: Work) -> AsyncIterator[Exported]:
    await work.connection.execute(work.sql["restart_count"], work.request.id)
    for place in PLACES:
        async for one in place.export(work):
            yield one


@asynccontextmanager
async def _opened(target: str | asyncpg.Connection, options: Options) -> AsyncIterator[_Opened]:
    if isinstance(target, str) and is_sqlite(target):
        async with _opened_sqlite(target, options) as opened:
            yield opened
        return
    async with open_session(target, **options) as session:
        try:
            await _demand_owner(session)
            await session.load()
            session.require_aggregates()
            found = await session.find(keep=False)
            flavour, warnings, notes = session.decide_flavour(found)
            await session.use(found.extension_schema)
        except asyncpg.InsufficientPrivilegeError as error:
            raise MigrationError(
                "this needs the rights of the tables' owner: run it as the owner, or as a superuser"
            ) from error
        if not await session.connection.fetchval(SQL["is_installed"]):
            raise MigrationError(
                f"the schema {session.schema} lacks what this command needs: run analytics-migrate all first"
            )
        about = {
            "flavour": flavour, "database": found.text, "schema": session.schema, "warnings": warnings, "notes": notes,
        }  # fmt: skip
        yield _Opened(session.connection, Work, session.tell, about)


@asynccontextmanager
async def _opened_sqlite(target: str, options: Options) -> AsyncIterator[_Opened]:
    report = await sqlite.status(target, options=options)
    url, wait = read_sqlite_url(target), options.get("wait")
    if not any(step.phase == "post" for step in report.applied):
        raise MigrationError(f"{url} has no aggregates yet: run analytics-migrate all first")
    with open_sqlite(url, busy_seconds=sqlite.LOCK_SECONDS if wait is None else wait) as connection:
        is_installed = await connection.fetchval(SqliteWork.sql["is_installed"])
        if not is_installed or not await connection.fetchval(SqliteWork.sql["is_declared"]):
            raise MigrationError(f"{url} lacks what this command needs: run analytics-migrate all first")
        about: dict[str, Any] = {
            "flavour": report.flavour, "database": report.database, "schema": report.schema,
            "warnings": report.warnings, "notes": report.notes,
        }  # fmt: skip
        yield _Opened(connection, SqliteWork, options.get("tell", lambda _: None), about)


async def _demand_owner(session: Session) -> None:
    """Raise `MigrationError` unless the role may do what the owner of the tables may."""
    await session.use(None)
    if not await session.connection.fetchval(SQL["has_events"]):
        return  # not installed: the session says so
    facts = await session.connection.fetchrow(load("asgi_analytics.admin", "roles.sql")["owner"])
    if not facts["acts_for_it"]:
        raise MigrationError(
            f"the role {quoted(facts['me'])} may not do this: it needs the rights of {quoted(facts['owner'])}, who "
            "owns the tables; run it as that role, or as a superuser"
        )


async def _begin(opened: _Opened, user: UserId, kind: Kind, spool: str | Path | None) -> Work:
    subject = Subject(user)
    folder = None if spool is None else Path(spool)
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"the folder of the spool is not there: {folder}")
    # Only for what needs it, and before anything is done: it may find a class that cannot be read.
    personal = personal_fields() if kind == "anonymise" else {}
    connection, sql = opened.connection, opened.work.sql
    if isinstance(connection, SqliteConnection):
        connection.know(subject)
    tables = await find_tables(connection, sql)
    request = await open_request(connection, subject, kind, sql)
    return opened.work(connection, subject, request, tables, folder, personal)
