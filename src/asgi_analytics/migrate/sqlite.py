"""The runner for SQLite: what `asgi_analytics.migrate.runner` does, with the steps of ``migrations/sqlite``."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from asgi_analytics._version import __version__
from asgi_analytics.database.blocks import load
from asgi_analytics.database.sqlite.connection import open_connection, transaction
from asgi_analytics.database.sqlite.failures import explain
from asgi_analytics.database.sqlite.times import now_text
from asgi_analytics.database.sqlite.upkeep import Filled, SqliteUpkeep
from asgi_analytics.database.sqlite.url import SqliteUrl, read_sqlite_url
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate.aggregates import PATIENCE, Refreshed
from asgi_analytics.migrate.files import MigrationFile, find_migrations, shipped_folder
from asgi_analytics.migrate.plan import Applied, PreFirst, pending
from asgi_analytics.migrate.report import Report, Step, applied_step, pending_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.resources.abc import Traversable

    from asgi_analytics.migrate.plan import Wanted
    from asgi_analytics.migrate.session import Options

T = TypeVar("T")

SQL = load("asgi_analytics.migrate", "sqlite.sql")
FOLDER = "sqlite"
LOCK_SECONDS = 60.0
"""How long another run, or a writer, is waited for without ``--wait``."""
SCHEMA = "main"
"""What SQLite calls the schema of the file itself."""


class SqliteStepFailed(MigrationError):
    """A statement of a step failed; ``file`` names the step, ``applied`` are those that this run applied before."""

    def __init__(self, file: str, message: str, applied: Sequence[Step]) -> None:
        super().__init__(message)
        self.file = file
        self.applied = tuple(applied)


def sqlite_migrations(folder: Traversable | None = None) -> tuple[MigrationFile, ...]:
    """Return the steps of a folder, by default those that are shipped for SQLite, by number."""
    return find_migrations(shipped_folder().joinpath(FOLDER) if folder is None else folder)


async def migrate(target: str, *, phase: Wanted, options: Options) -> Report:
    """Apply the pending steps of a phase, each whole or not at all; the file is made if it is missing."""
    return await _run(_migrate, target, phase, options)


async def status(target: str, *, options: Options) -> Report:
    """Return what is applied and what is pending, and change nothing."""
    return await _run(_status, target, "all", options)


async def dry_run(target: str, *, phase: Wanted, options: Options) -> Report:
    """Return the pending steps and, as ``sql``, a script for the sqlite3 shell; change nothing."""
    return await _run(_dry_run, target, phase, options)


async def refresh(
    target: str, since: datetime | None, until: datetime | None, *, options: Options
) -> tuple[Report, list[Refreshed]]:
    """Fill the aggregates, and without a range do the whole upkeep; return the state and what was filled.

    Raises `MigrationError` if the schema is not installed, or another process does the upkeep for a minute.
    """

    def work(target: str, phase: Wanted, options: Options) -> tuple[Report, list[Refreshed]]:
        report = _status(target, phase, options)
        if not report.applied or any(step.phase == "pre" for step in report.pending):
            raise MigrationError(f"{read_sqlite_url(target)} has no tables yet: run analytics-migrate all first")
        wait = options.get("wait")
        deadline = time.monotonic() + (PATIENCE if wait is None else wait)
        upkeep = SqliteUpkeep(read_sqlite_url(target))
        try:
            while not (steps := list(upkeep.steps(since, until))):
                if time.monotonic() > deadline:
                    raise MigrationError("another process is doing the upkeep: run this again when it is done")
                time.sleep(0.2)
        finally:
            upkeep.close()
        return report, [
            Refreshed(view=step.view, start=step.start, end=step.end, duration_ms=step.duration_ms)
            for step in steps
            if isinstance(step, Filled)
        ]

    return await _run(work, target, "all", options)


async def run_on(
    target: str,
    work: Callable[[sqlite3.Connection], T],
    *,
    needs: int,
    lacks: str,
    options: Options,
    writes: bool = False,
) -> tuple[Report, T]:
    """Do something in an installed database, in one transaction if it writes; return the state, and what is returned.

    Raises `MigrationError` unless a step of the number ``needs`` or above is applied; ``lacks`` says what is missing.
    """

    def run(target: str, phase: Wanted, options: Options) -> tuple[Report, T]:
        report, url = _status(target, phase, options), read_sqlite_url(target)
        if not any(step.version >= needs for step in report.applied):
            lacking = lacks if report.applied else "has no tables yet"
            raise MigrationError(f"{url} {lacking}: run analytics-migrate all first")
        with _open(url, "rw" if writes else "ro", options) as connection:
            if not writes:
                return report, work(connection)
            with transaction(connection):
                return report, work(connection)

    done: tuple[Report, T] = await _run(run, target, "all", options)
    return done


async def _run(work: Callable[[str, Wanted, Options], T], target: str, phase: Wanted, options: Options) -> T:
    if options.get("schema") not in (None, SCHEMA):
        raise ConfigError("SQLite has no schemas: leave --schema out, and use a file of its own")
    if options.get("require_timescaledb"):
        raise ConfigError("the database is SQLite, not TimescaleDB (--require-timescaledb)")
    wait = options.get("wait")
    if wait is not None and not 0 <= wait < float("inf"):
        raise ConfigError(f"wait is {wait!r}: use a number of seconds from 0")
    try:
        return await asyncio.to_thread(work, target, phase, options)
    except (sqlite3.Error, OSError) as error:
        raise MigrationError(explain(error, read_sqlite_url(target)).text) from error


def _migrate(target: str, phase: Wanted, options: Options) -> Report:
    url, files = read_sqlite_url(target), sqlite_migrations(options.get("folder"))
    if not url.path.parent.is_dir():
        raise MigrationError(f"there is no folder {url.path.parent}: make it, or correct the database URL")
    applied: list[Step] = []
    if not url.path.exists():
        try:
            pending(files, [], "postgresql", phase)  # before a file is made for nothing
        except PreFirst:
            raise PreFirst(f"there is no {url} yet: run analytics-migrate pre first") from None
    with _open(url, "rwc", options) as connection:
        for file in pending(files, _ledger(connection), "postgresql", phase):
            if (duration_ms := _apply(connection, file, applied)) is not None:
                applied.append(pending_step(file, duration_ms))
        left = pending(files, _ledger(connection), "postgresql")
    return _report(url, applied=tuple(applied), pending=tuple(map(pending_step, left)))


def _status(target: str, phase: Wanted, options: Options) -> Report:
    url, files = read_sqlite_url(target), sqlite_migrations(options.get("folder"))
    rows: list[Applied] = []
    if url.path.exists():
        with _open(url, "ro", options) as connection:
            rows = _ledger(connection)
    descriptions = {file.name: file.description for file in files}
    left = pending(files, rows, "postgresql", phase)
    return _report(
        url,
        applied=tuple(applied_step(row, descriptions[row.name]) for row in rows),
        pending=tuple(map(pending_step, left)),
    )


def _dry_run(target: str, phase: Wanted, options: Options) -> Report:
    report = _status(target, phase, options)
    names = {step.name for step in report.pending}
    script: list[str] = []
    for file in sqlite_migrations(options.get("folder")):
        if file.name in names:
            if not script:
                script = ["PRAGMA journal_mode = WAL;", f"{SQL['create']};"]
            texts = [f"{statement.text};" for statement in file.statements["postgresql"]]
            values = (file.version, file.name, file.phase, file.checksum, now_text(), 0, __version__)
            quoted = ", ".join(str(value) if isinstance(value, int) else f"'{value}'" for value in values)
            record = SQL["record"].partition("VALUES")[0]
            script += [f"-- {file.name}", "BEGIN IMMEDIATE;", *texts, f"{record}VALUES ({quoted});", "COMMIT;"]
    return _report(read_sqlite_url(target), pending=report.pending, sql="\n".join(script) + "\n" if script else None)


@contextlib.contextmanager
def _open(url: SqliteUrl, mode: Any, options: Options) -> Iterator[sqlite3.Connection]:
    wait = options.get("wait")
    with contextlib.closing(
        open_connection(url, mode, busy_seconds=LOCK_SECONDS if wait is None else wait)
    ) as connection:
        yield connection


def _ledger(connection: sqlite3.Connection) -> list[Applied]:
    """Return the rows of the ledger; none if there is no ledger."""
    if connection.execute(SQL["has_ledger"]).fetchone() is None:
        return []
    return [
        Applied(version, name, phase, checksum, datetime.fromisoformat(applied_at), duration_ms, library_version)
        for version, name, phase, checksum, applied_at, duration_ms, library_version in connection.execute(SQL["rows"])
    ]


def _apply(connection: sqlite3.Connection, file: MigrationFile, applied: Sequence[Step]) -> float | None:
    """Run a step and note it, in one transaction; return the milliseconds, or None if another run has done it."""
    started = time.perf_counter()
    statement = file.statements["postgresql"][0]
    with transaction(connection):
        connection.execute(SQL["create"])
        if connection.execute(SQL["is_applied"], (file.version,)).fetchone() is not None:
            return None
        try:
            for statement in file.statements["postgresql"]:
                connection.execute(statement.text)
        except sqlite3.Error as error:
            where = f"{file.name}, line {statement.line}, {statement.first_line!r}"
            raise SqliteStepFailed(
                file.name,
                f"{where}: {error}; nothing of this file is kept: remove the cause, then run this again",
                applied,
            ) from error
        duration_ms = round((time.perf_counter() - started) * 1000, 3)
        connection.execute(
            SQL["record"],
            (file.version, file.name, file.phase, file.checksum, now_text(), duration_ms, __version__),
        )
    return duration_ms


def _report(url: SqliteUrl, **values: Any) -> Report:
    return Report(flavour="sqlite", database=f"SQLite {sqlite3.sqlite_version}, {url.path}", schema=SCHEMA, **values)
