"""The registry of the schemas of events: filled from the classes of an application, version by version."""

from __future__ import annotations

import importlib
import json
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.sqlite.times import from_text, now_text
from asgi_analytics.database.sqlite.url import is_sqlite
from asgi_analytics.encoding.definition import breaking, definition, example, is_same, required_fields
from asgi_analytics.encoding.shape import UNREADABLE
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.events.base import Event, event_type_of, event_types, known_categories
from asgi_analytics.migrate import sqlite
from asgi_analytics.migrate.report import Store
from asgi_analytics.migrate.session import open_session
from asgi_analytics.sinks.base import StoredSchema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from typing import Unpack

    from asgi_analytics.migrate.report import Report
    from asgi_analytics.migrate.session import Options, Session

T = TypeVar("T")

SQL = load("asgi_analytics.admin", "schemas.sql")
FIRST_STEP = 211
"""The migration that made the table."""
CATALOGUE = "asgi_analytics.events"

Change = Literal["new", "new version", "changed", "unchanged", "refused"]


class Synced(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the schema of one type."""

    event_type: str
    version: int
    """The active one after this run."""
    change: Change
    """`changed`: only its category, its description or how long it is kept; `refused`: see ``breaking``."""
    breaking: tuple[str, ...] = ()
    """What breaks senders or readers of the version before."""


class SyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync did; nothing at all if a change was refused."""

    flavour: Store
    database: str
    schema: str
    types: tuple[Synced, ...]
    refused: bool
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a schema in the registry."""

    event_type: str
    version: int
    event_category: str
    required_fields: tuple[str, ...]
    retention_days: int
    is_active: bool
    updated_at: datetime
    description: str | None


class RegistryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry holds."""

    flavour: Store
    database: str
    schema: str
    schemas: tuple[Registered, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def classes_of(names: Sequence[str]) -> list[type[Event]]:
    """Import modules and return the event classes that they, or modules below them, define or bring in, by type.

    Classes of the catalogue count only if its own module is named. Raises `ConfigError` for a module that cannot be
    imported, or has no event class.
    """
    found: dict[str, type[Event]] = {}
    importlib.invalidate_caches()
    for name in names:
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"the module {name} cannot be imported: {type(error).__name__}: {error}") from error
        mine = _classes_in(module)
        if not mine:
            raise ConfigError(f"the module {name} has no event class: name the one that defines them")
        found |= mine
    return [found[event_type] for event_type in sorted(found)]


def _classes_in(module: ModuleType) -> dict[str, type[Event]]:
    name = module.__name__
    is_catalogue = f"{name}.".startswith(f"{CATALOGUE}.")
    known = event_types()
    brought_in = {id(one) for one in vars(module).values() if isinstance(one, type)}
    return {
        event_type: cls
        for event_type, cls in known.items()
        if (f"{cls.__module__}.".startswith(f"{name}.") or id(cls) in brought_in)
        and (is_catalogue or not cls.__module__.startswith(f"{CATALOGUE}."))
    }


async def sync_schemas(
    target: str | asyncpg.Connection,
    classes: Sequence[type[Event]],
    *,
    allow_breaking: bool = False,
    **options: Unpack[Options],
) -> SyncReport:
    """Bring the registry, and the categories of types, in line with event classes: all of them, or none.

    A schema that has changed gets a new version, which is the active one. A change that breaks others is refused unless
    ``allow_breaking``: a new required field, a removed field, another type of a field. The other arguments are those of
    `migrate`. Raises `ConfigError` for a class whose events cannot be stored, `MigrationError` if the schema is not
    installed, or too old.
    """
    made = [_Made(cls) for cls in classes]
    if isinstance(target, str) and is_sqlite(target):
        report, synced = await _run_on_sqlite(
            target, lambda connection: _sync_on_sqlite(connection, made, allow_breaking), options, writes=True
        )
        return SyncReport(
            flavour=report.flavour,
            database=report.database,
            schema=report.schema,
            types=synced,
            refused=_is_refused(synced),
        )
    async with open_session(target, in_one_transaction=True, **options) as session:
        await _load(session)
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        await session.use(found.extension_schema)
        async with session.connection.transaction():
            await session.connection.execute(SQL["lock"])
            rows = await session.connection.fetch(SQL["newest"], [one.event_type for one in made])
            synced = _compare(made, rows, allow_breaking)
            if not (refused := _is_refused(synced)):
                await _write(session.connection, made, synced)
        return SyncReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            types=synced,
            refused=refused,
            warnings=warnings,
            notes=notes,
        )


class _Made:
    """What one class says."""

    def __init__(self, cls: type[Event]) -> None:
        self.event_type = event_type_of(cls)
        self.category = known_categories()[self.event_type]
        try:
            self.definition = definition(cls)
        except UNREADABLE as error:
            raise ConfigError(f"{cls.__module__}.{cls.__qualname__} has no schema: {error}") from None
        self.required = required_fields(cls)
        self.description = self.definition.get("description")

    def compare(self, row: Any, allow_breaking: bool) -> Synced:
        if row is None:
            return Synced(event_type=self.event_type, version=1, change="new")
        before = json.loads(row["schema_definition"])
        needs_user = "user_id" in self.required and "user_id" not in row["required_fields"]
        if is_same(before, self.definition) and sorted(row["required_fields"]) == self.required:
            same = row["is_active"] and before == json.loads(_text(self.definition))
            same = same and (row["event_category"], row["description"]) == (self.category, self.description)
            return Synced(event_type=self.event_type, version=row["version"], change="unchanged" if same else "changed")
        broken = [*breaking(before, self.definition), *(["the field user_id is required now"] if needs_user else [])]
        is_refused = bool(broken) and not allow_breaking
        return Synced(
            event_type=self.event_type,
            version=row["version"] + (not is_refused),
            change="refused" if is_refused else "new version",
            breaking=tuple(broken),
        )


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _compare(made: Sequence[_Made], rows: Sequence[Any], allow_breaking: bool) -> tuple[Synced, ...]:
    newest = {row["event_type"]: row for row in rows}
    return tuple(one.compare(newest.get(one.event_type), allow_breaking) for one in made)


def _is_refused(synced: Sequence[Synced]) -> bool:
    return any(one.change == "refused" for one in synced)


async def _write(connection: Any, made: Sequence[_Made], synced: Sequence[Synced]) -> None:
    days = {category: keep.days for category, keep in await connection.fetch(SQL["days"])}
    for one, what in zip(made, synced, strict=True):
        if what.change != "unchanged":
            await connection.execute(
                SQL["change" if what.change == "changed" else "add"],
                one.event_type,
                what.version,
                one.category,
                _text(one.definition),
                one.required,
                _text(example(one.definition)),
                one.description,
                days[one.category],
            )
    await connection.execute(SQL["categories"], [one.event_type for one in made], [one.category for one in made])


async def _run_on_sqlite(
    target: str, work: Callable[[sqlite3.Connection], T], options: Options, *, writes: bool = False
) -> tuple[Report, T]:
    return await sqlite.run_on(target, work, needs=FIRST_STEP, lacks="has no registry", options=options, writes=writes)


def _sync_on_sqlite(connection: sqlite3.Connection, made: Sequence[_Made], allow_breaking: bool) -> tuple[Synced, ...]:
    types = _text([one.event_type for one in made])
    names = ("event_type", "version", "event_category", "schema_definition", "required_fields", "description")
    rows = [dict(zip((*names, "is_active"), row, strict=True)) for row in connection.execute(
        SQL["newest_on_sqlite"], (types,)
    )]  # fmt: skip
    for row in rows:
        row |= {"required_fields": json.loads(row["required_fields"]), "is_active": bool(row["is_active"])}
    synced = _compare(made, rows, allow_breaking)
    if _is_refused(synced):
        return synced
    days = dict(connection.execute(SQL["days_on_sqlite"]).fetchall())
    for one, what in zip(made, synced, strict=True):
        values = {
            "event_type": one.event_type,
            "version": what.version,
            "category": one.category,
            "definition": _text(one.definition),
            "required": _text(one.required),
            "example": _text(example(one.definition)),
            "description": one.description,
            "days": days[one.category],
            "now": now_text(),
        }
        if what.change == "changed":
            connection.execute(SQL["change_on_sqlite"], values)
        elif what.change != "unchanged":
            connection.execute(SQL["retire_on_sqlite"], values)
            connection.execute(SQL["add_on_sqlite"], values)
        connection.execute(SQL["category_on_sqlite"], values)
    return synced


async def list_schemas(target: str | asyncpg.Connection, **options: Unpack[Options]) -> RegistryReport:
    """Return every version of every schema. The arguments are those of `migrate`; raises as `sync_schemas` does."""
    if isinstance(target, str) and is_sqlite(target):
        report, schemas = await _run_on_sqlite(target, _list_on_sqlite, options)
        return RegistryReport(flavour=report.flavour, database=report.database, schema=report.schema, schemas=schemas)
    async with open_session(target, in_one_transaction=True, **options) as session:
        await _load(session)
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        await session.use(found.extension_schema)
        rows = await session.connection.fetch(SQL["list"])
        return RegistryReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            schemas=tuple(Registered(**{**row, "required_fields": tuple(row["required_fields"])}) for row in rows),
            warnings=warnings,
            notes=notes,
        )


def _list_on_sqlite(connection: sqlite3.Connection) -> tuple[Registered, ...]:
    return tuple(
        Registered(
            event_type=row[0],
            version=row[1],
            event_category=row[2],
            required_fields=tuple(json.loads(row[3])),
            retention_days=row[4],
            is_active=bool(row[5]),
            updated_at=from_text(row[6]),
            description=row[7],
        )
        for row in connection.execute(SQL["list"])
    )


async def active_schemas(target: str | asyncpg.Connection, **options: Unpack[Options]) -> list[StoredSchema]:
    """Return the schemas that events are checked by; raises as `sync_schemas` does."""
    if isinstance(target, str) and is_sqlite(target):
        _, rows = await _run_on_sqlite(
            target, lambda connection: connection.execute(SQL["active_on_sqlite"]).fetchall(), options
        )
        return [StoredSchema(name, definition, bool(needs_user)) for name, definition, needs_user in rows]
    async with open_session(target, in_one_transaction=True, **options) as session:
        await _load(session)
        found = await session.find(keep=False)
        await session.use(found.extension_schema)
        return [StoredSchema(*row) for row in await session.connection.fetch(SQL["active"])]


async def _load(session: Session) -> None:
    await session.load()
    if not any(row.version >= FIRST_STEP for row in session.rows):
        raise MigrationError(f"the schema {session.schema} has no registry: run analytics-migrate all first")
