"""Bring the schema up to date: `migrate`. `status` and `dry_run` look and change nothing."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from asgi_analytics._version import __version__
from asgi_analytics.database.failures import DRIVER_ERRORS, explain
from asgi_analytics.database.flavour import FLAVOURS
from asgi_analytics.database.sqlite.url import is_sqlite
from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate import ledger, script, sqlite
from asgi_analytics.migrate.aggregates import refresh_pending
from asgi_analytics.migrate.files import MigrationFile
from asgi_analytics.migrate.lock import advisory_lock
from asgi_analytics.migrate.plan import PreFirst, leaves_history, pending
from asgi_analytics.migrate.report import Report, Step, applied_step, pending_step
from asgi_analytics.migrate.session import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from asgi_analytics.database.flavour import Flavour
    from asgi_analytics.migrate.plan import Wanted
    from asgi_analytics.migrate.session import Options, Session


class StepFailed(MigrationError):
    """A statement of a step failed; ``file`` names the step, ``applied`` are those that this run applied before."""

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

    ``target`` is a database URL, of PostgreSQL or SQLite, or an open connection outside a transaction, which gets its
    settings back. ``schema``
    is made if it is missing; without a name, it is the first of the connection's ``search_path``. ``wait`` is in
    seconds, for the server to answer and for another run to end, together; 0 waits for neither; without it the server
    must answer at once, and another run is waited for as long as it takes. ``folder`` holds other steps than the
    shipped ones. ``tell`` gets a line when there is something to wait for.

    Every step is applied whole or not at all, or safe to repeat (``-- transaction: no``): a run that failed, or was
    killed, is simply run again. Aggregates are filled with the events that were there before them. Raises
    `MigrationError` or `ConfigError`; no message holds a password.
    """
    if isinstance(target, str) and is_sqlite(target):
        return await sqlite.migrate(target, phase=phase, options=options)
    async with (
        open_session(target, **options) as session,
        advisory_lock(session.connection, session.schema, session.deadline, session.tell),
    ):
        await session.load()
        if session.is_new and phase == "post":  # before an extension is created for nothing
            try:
                for flavour in FLAVOURS:
                    pending(session.files, session.rows, flavour, phase)
            except PreFirst:  # it names a file of one flavour, and this database may be of the other
                text = f"nothing is installed in the schema {session.schema} yet: run analytics-migrate pre first"
                raise PreFirst(text) from None
        found = await session.find(keep=True)
        flavour, warnings, _ = session.decide_flavour(found)
        steps = pending(session.files, session.rows, flavour, phase)
        session.require_server(flavour, found, steps)
        if steps:
            await session.prepare(found, flavour)
        applied = await _run(session, flavour, steps)
        done = {step.version for step in applied}
        left = [file for file in pending(session.files, session.rows, flavour) if file.version not in done]
        return Report(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            applied=tuple(applied),
            pending=tuple(pending_step(file) for file in left),
            warnings=warnings,
        )


async def status(target: str | asyncpg.Connection, **options: Unpack[Options]) -> Report:
    """Return what is applied and what is pending, and change nothing. Raises as `migrate` does, for drift too."""
    if isinstance(target, str) and is_sqlite(target):
        return await sqlite.status(target, options=options)
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
            applied=tuple(applied_step(row, descriptions[row.name]) for row in session.rows),
            pending=tuple(pending_step(file) for file in steps),
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
    if isinstance(target, str) and is_sqlite(target):
        return await sqlite.dry_run(target, phase=phase, options=options)
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
            pending=tuple(pending_step(file) for file in steps),
            warnings=warnings,
            notes=notes,
            sql=script.write(session, found, flavour, steps, __version__),
        )


async def _run(session: Session, flavour: Flavour, steps: Sequence[MigrationFile]) -> list[Step]:
    """Apply the steps, and fill the aggregates with their history where that is due. Raises `StepFailed`."""
    applied: list[Step] = []
    try:
        for file in steps:
            if file.needs_history:
                await _fill_history(session.connection, file)
            applied.append(pending_step(file, await _apply(session.connection, file, flavour)))
        if leaves_history(session.files, session.rows, steps):
            await _fill_history(session.connection, steps[-1])
    except StepFailed as exc:
        exc.applied = tuple(applied)
        raise
    return applied


async def _apply(connection: Any, file: MigrationFile, flavour: Flavour) -> float:
    """Run a step and note it; return the milliseconds it took."""
    started = time.perf_counter()
    statements = file.statements[flavour]
    statement = statements[0]
    try:
        async with connection.transaction() if file.transactional else contextlib.nullcontext():
            for statement in statements:
                await connection.execute(statement.text)
            duration_ms = round((time.perf_counter() - started) * 1000, 3)
            await ledger.record(connection, file, duration_ms, __version__)
    except DRIVER_ERRORS as exc:
        kept = "nothing of this file is kept" if file.transactional else "what ran before it in this file is kept"
        where = f"{file.name}, line {statement.line}, {statement.first_line!r}"
        raise StepFailed(file.name, f"{where}: {_reason(exc)}; {kept}: {_remedy(exc, file)}") from exc
    return duration_ms


async def _fill_history(connection: Any, file: MigrationFile) -> None:
    """Fill the aggregates with the events that were there before them."""
    try:
        await refresh_pending(connection)
    except (MigrationError, *DRIVER_ERRORS) as exc:
        cure = "run this again" if file.needs_history else "run analytics-migrate refresh"
        raise StepFailed(
            file.name, f"the history of the aggregates is not complete: {_reason(exc)}; remove the cause, then {cure}"
        ) from exc


def _cause(exc: BaseException) -> BaseException:
    """Return the error that ended a connection, instead of the ROLLBACK that could no longer be sent."""
    while isinstance(exc.__context__, DRIVER_ERRORS):
        exc = exc.__context__
    return exc


def _reason(exc: BaseException) -> str:
    cause = _cause(exc)
    text = " ".join(str(cause).split())
    code = getattr(cause, "sqlstate", None)
    return f"{text} ({code})" if code else text


def _remedy(exc: BaseException, file: MigrationFile) -> str:
    failure = explain(_cause(exc))
    repeat = "run this again" if file.transactional else "run this again: its statements are safe to repeat"
    if failure.is_lost:
        return f"the connection ended; {repeat}"
    # Other cures are for a running application, and do not help a step.
    if failure.cure and (failure.kind == "transient" or isinstance(_cause(exc), asyncpg.InsufficientPrivilegeError)):
        return f"{failure.cure}, then {repeat}"
    return f"remove the cause, then {repeat}"
