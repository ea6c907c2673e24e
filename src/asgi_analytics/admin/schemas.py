"""The registry of the schemas of events: filled from the classes of an application, version by version."""

from __future__ import annotations

import importlib
import json
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.flavour import Flavour
from asgi_analytics.encoding.definition import breaking, definition, example, is_same, required_fields
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.events.base import Event, event_type_of, event_types, known_categories
from asgi_analytics.migrate.session import open_session
from asgi_analytics.sinks.base import StoredSchema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    from asgi_analytics.migrate.session import Options, Session

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

    flavour: Flavour
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

    flavour: Flavour
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
        except Exception as error:
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
    async with open_session(target, in_one_transaction=True, **options) as session:
        await _load(session)
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        await session.use(found.extension_schema)
        async with session.connection.transaction():
            await session.connection.execute(SQL["lock"])
            rows = await session.connection.fetch(SQL["newest"], [one.event_type for one in made])
            newest = {row["event_type"]: row for row in rows}
            synced = tuple(one.compare(newest.get(one.event_type), allow_breaking) for one in made)
            refused = any(one.change == "refused" for one in synced)
            if not refused:
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
        except (TypeError, ValueError) as error:
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


async def list_schemas(target: str | asyncpg.Connection, **options: Unpack[Options]) -> RegistryReport:
    """Return every version of every schema. The arguments are those of `migrate`; raises as `sync_schemas` does."""
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


async def active_schemas(target: str | asyncpg.Connection, **options: Unpack[Options]) -> list[StoredSchema]:
    """Return the schemas that events are checked by; raises as `sync_schemas` does."""
    async with open_session(target, in_one_transaction=True, **options) as session:
        await _load(session)
        found = await session.find(keep=False)
        await session.use(found.extension_schema)
        return [StoredSchema(*row) for row in await session.connection.fetch(SQL["active"])]


async def _load(session: Session) -> None:
    await session.load()
    if not any(row.version >= FIRST_STEP for row in session.rows):
        raise MigrationError(f"the schema {session.schema} has no registry: run analytics-migrate all first")
