"""Bring the schema up to date: `migrate`; and `status` and `dry_run`, which change nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import asyncpg

from asgi_analytics._version import __version__
from asgi_analytics.admin.refresh import refresh
from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate import ledger, script
from asgi_analytics.migrate.files import FLAVOURS, MigrationFile
from asgi_analytics.migrate.lock import advisory_lock
from asgi_analytics.migrate.plan import Applied, PreFirst, pending
from asgi_analytics.migrate.report import RefreshReport, Report, Step
from asgi_analytics.migrate.session import open_session

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Unpack

    from asgi_analytics.migrate.plan import Wanted
    from asgi_analytics.migrate.session import Options
    from asgi_analytics.migrate.statements import Statement


class StepFailed(MigrationError):
    """A statement of a step failed; ``file`` names it, ``applied`` are the steps this run applied before."""

    def __init__(self, file: str, message: str) -> None:
        super().__init__(message)
        self.file = file
        self.applied: tuple[Step, ...] = ()


async def migrate(
    target: str | asyncpg.Connection,
    *,
    phase: Wanted = "all",
    **options: Unpack[Options],
) -> Report:
    """Apply the pending steps of a phase and return what was done.

    ``target`` is a database URL, or an open connection outside a transaction, which gets its settings back. ``schema``
    is made when it is missing; without, it is the first of the connection's ``search_path``. ``wait`` is in seconds,
    for the server to answer and for another run to end, together; 0 waits for neither; without it the server must
    answer at once, and another run is waited for as long as it takes. ``folder`` holds other steps than the shipped
    ones. ``tell`` gets a line when there is something to wait for.

    Every step but those with ``-- transaction: no`` is applied whole or not at all, and those are safe to repeat: a run
    that failed, or was killed, is simply run again. Raises `MigrationError` or `ConfigError`; no message holds a
    password.
    """
    async with (
        open_session(target, **options) as session,
        advisory_lock(session.connection, session.schema, session.deadline, session.tell),
    ):
        await session.load()
        if session.is_new and phase == "post":  # before an extension is created for nothing
            try:
                for flavour in FLAVOURS:
                    pending(session.files, session.rows, flavour, phase)
            except PreFirst:  # it names a file of one kind of database, and this may be the other
                text = f"nothing is installed in the schema {session.schema} yet: run analytics-migrate pre first"
                raise PreFirst(text) from None
        found = await session.find(keep=True)
        flavour, warnings, _ = session.decide_flavour(found)
        steps = pending(session.files, session.rows, flavour, phase)
        session.require_server(flavour, found, steps)
        if steps:
            await session.prepare(found, flavour)
        applied: list[Step] = []
        for file in steps:
            try:
                duration_ms = await _apply(session.connection, file)
            except StepFailed as exc:
                exc.applied = tuple(applied)
                raise
            applied.append(_step(file, duration_ms))
        done = {step.version for step in applied}
        left = [file for file in pending(session.files, session.rows, flavour) if file.version not in done]
        return Report(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            applied=tuple(applied),
            pending=tuple(_step(file) for file in left),
            warnings=warnings,
        )


async def status(target: str | asyncpg.Connection, **options: Unpack[Options]) -> Report:
    """Return what is applied and what is pending, and change nothing. Raises as `migrate` does, for drift too."""
    async with open_session(target, in_one_transaction=True, **options) as session:
        await session.load()
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        descriptions = {file.name: file.description for file in session.files}
        steps = pending(session.files, session.rows, flavour)
        return Report(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            applied=tuple(_done(row, descriptions[row.name]) for row in session.rows),
            pending=tuple(_step(file) for file in steps),
            warnings=warnings,
            notes=notes,
        )


async def dry_run(
    target: str | asyncpg.Connection,
    *,
    phase: Wanted = "all",
    **options: Unpack[Options],
) -> Report:
    """Return the pending steps and, as ``sql``, a psql script that does what `migrate` would do; change nothing."""
    async with open_session(target, in_one_transaction=True, **options) as session:
        await session.load()
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        steps = pending(session.files, session.rows, flavour, phase)
        session.require_server(flavour, found, steps)
        return Report(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            pending=tuple(_step(file) for file in steps),
            warnings=warnings,
            notes=notes,
            sql=script.write(session, found, flavour, steps, __version__),
        )


async def refresh_views(
    target: str | asyncpg.Connection,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    **options: Unpack[Options],
) -> RefreshReport:
    """Bring the aggregates up to date, over all that is pending or from ``since`` up to ``until`` (aware).

    Raises `MigrationError` when the schema is not installed, and as `migrate` does.
    """
    async with open_session(target, **options) as session:
        await session.load()
        session.require_aggregates()
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        await session.use(found.extension_schema)
        refreshed = await refresh(session.connection, since, until)
        return RefreshReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            warnings=warnings,
            notes=notes,
            refreshed=tuple(refreshed),
        )


async def _apply(connection: Any, file: MigrationFile) -> float:
    """Run a step and note it; return the milliseconds it took."""
    started = time.perf_counter()
    statement = file.statements[0]
    try:
        if file.transactional:
            async with connection.transaction():
                for statement in file.statements:
                    await connection.execute(statement.text)
                duration_ms = _since(started)
                await ledger.record(connection, file, duration_ms, __version__)
        else:
            for statement in file.statements:
                await connection.execute(statement.text)
            duration_ms = _since(started)
            await ledger.record(connection, file, duration_ms, __version__)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise StepFailed(file.name, _failure(file, statement, exc)) from exc
    return duration_ms


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _failure(file: MigrationFile, statement: Statement, exc: BaseException) -> str:
    what = " ".join(str(exc).split())
    code = getattr(exc, "sqlstate", None)
    kept = "nothing of this file is kept" if file.transactional else "what ran before it in this file is kept"
    if code == "42501":
        remedy = "as the owner or a superuser GRANT the missing right, then run this again"
    elif file.transactional:
        remedy = "remove the cause, then run this again"
    else:
        remedy = "remove the cause, then run this again: its statements are safe to repeat"
    return f"{file.name}, line {statement.line}, {statement.first_line!r}: {what}" + (
        f" ({code}); {kept}: {remedy}" if code else f"; {kept}: {remedy}"
    )


def _step(file: MigrationFile, duration_ms: float | None = None) -> Step:
    return Step(
        version=file.version,
        name=file.name,
        phase=file.phase,
        description=file.description,
        duration_ms=duration_ms,
    )


def _done(row: Applied, description: str) -> Step:
    return Step(
        version=row.version,
        name=row.name,
        phase=row.phase,
        description=description,
        applied_at=row.applied_at,
        duration_ms=row.duration_ms,
    )
