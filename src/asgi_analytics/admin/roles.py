"""Roles to grant to login roles: a writer that can insert and nothing else, a reader, and one that runs exports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import asyncpg
import msgspec

from asgi_analytics.database.blocks import load
from asgi_analytics.database.flavour import Flavour
from asgi_analytics.database.names import checked, quoted
from asgi_analytics.database.sqlite.url import is_sqlite
from asgi_analytics.errors import ConfigError, MigrationError
from asgi_analytics.migrate.lock import advisory_lock
from asgi_analytics.migrate.session import open_session
from asgi_analytics.migrate.statements import split

if TYPE_CHECKING:
    from typing import Unpack

    from asgi_analytics.migrate.session import Options, Session

Purpose = Literal["writer", "reader", "exporter"]

WRITER, READER = "analytics_writer", "analytics_reader"

SQL = load("asgi_analytics.admin", "roles.sql")
CHANGING = ("UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
FORBIDDEN = {"writer": ("SELECT", *CHANGING), "reader": ("INSERT", *CHANGING), "exporter": ("INSERT", *CHANGING)}
ATTEMPTS = 10
"""How often the grants are tried while other sessions change the same tables."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One of the roles."""

    name: str
    purpose: Purpose
    is_new: bool
    """Made by this run; otherwise it existed, and has the rights now."""


class RolesReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `make_roles` did, or would do."""

    flavour: Flavour
    database: str
    schema: str
    roles: tuple[Role, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sql: str | None = None
    """Of a dry run: a script for psql that does what the run would do."""


async def make_roles(
    target: str | asyncpg.Connection,
    *,
    writer: str = WRITER,
    reader: str = READER,
    exporter: str | None = None,
    dry_run: bool = False,
    **options: Unpack[Options],
) -> RolesReport:
    """Make the roles that are missing, NOLOGIN, and give each the rights it needs and no others.

    All or nothing, and safe to repeat: run it again after an upgrade, which may bring tables and views. Roles belong to
    the server, their rights to this schema: another schema, or database, needs a run of its own. ``exporter`` names a
    third role, for what runs ``analytics-export``. The other arguments are those of `migrate`. Raises `ConfigError` for
    a name that is not valid for a role, or is that of the owner or a superuser, whose rights cannot be limited, and
    `MigrationError` if the schema is not installed or rights are missing.
    """
    if isinstance(target, str) and is_sqlite(target):
        raise ConfigError("SQLite has no roles: who may read or write the file is up to its rights in the file system")
    names: dict[Purpose, str] = {"writer": writer, "reader": reader}
    if exporter is not None:
        names["exporter"] = exporter
    for name in names.values():
        _check(name)
    if writer == reader:
        raise ConfigError(f"the writer and the reader are both {quoted(writer)}: give two names")
    if exporter in (writer, reader):
        raise ConfigError(f"the exporter and another role are both {quoted(exporter)}: give different names")
    async with open_session(target, in_one_transaction=True, **options) as session:
        await session.load()
        session.require_aggregates()
        found = await session.find(keep=False)
        flavour, warnings, notes = session.decide_flavour(found)
        await session.use(found.extension_schema)
        sql = None
        if dry_run:
            missing = await _missing(session, names)
            sql = _script(session, found.extension_schema, names, missing, await _views(session))
        else:
            async with advisory_lock(session.connection, session.schema, session.deadline, session.tell):
                missing = await _apply(session, names)
                warnings += await _too_much(session, names)
        return RolesReport(
            flavour=flavour,
            database=found.text,
            schema=session.schema,
            roles=tuple(Role(name=name, purpose=purpose, is_new=name in missing) for purpose, name in names.items()),
            warnings=warnings,
            notes=notes,
            sql=sql,
        )


def _check(name: str) -> None:
    if not checked(name, "role").isprintable():
        raise ConfigError(f"{name!r} cannot be read as the name of a role: leave out control characters")
    if name in ("public", "none") or name.startswith("pg_"):
        raise ConfigError(f"PostgreSQL keeps the name {name!r} for itself: use another one for the role")


async def _missing(session: Session, names: dict[Purpose, str]) -> list[str]:
    """Return the roles to be made. Raises if they cannot be made, or cannot be granted anything."""
    facts = await session.connection.fetchrow(SQL["owner"])
    if not facts["acts_for_it"]:
        raise MigrationError(
            f"the role {quoted(facts['me'])} may not grant rights on the tables of {quoted(facts['owner'])}: "
            "run this as their owner or as a superuser"
        )
    existing = await session.connection.fetch(SQL["existing"], list(names.values()))
    known = {row["name"]: row["is_owner"] for row in existing}
    for name, is_owner in known.items():
        if is_owner:
            raise ConfigError(
                f"the role {quoted(name)} owns the tables, is a member of their owner, or is a superuser, whose rights "
                "cannot be limited: use another name"
            )
    missing = [name for name in names.values() if name not in known]
    if missing and not facts["may_create"]:
        wanted = " and ".join(_create(name) for name in missing)
        raise MigrationError(
            f"the role {quoted(facts['me'])} may not make roles: as a superuser run {wanted}, then this again"
        )
    return missing


async def _apply(session: Session, names: dict[Purpose, str]) -> list[str]:
    """Make and grant all, or nothing; return the roles that were made."""
    for left in reversed(range(ATTEMPTS)):
        missing = await _missing(session, names)
        views = await _views(session)
        try:
            async with session.connection.transaction():
                for name in missing:
                    await session.connection.execute(_create(name))
                for statement in split(_grants(session, names, views)):
                    await session.connection.execute(statement.text)
                await _demand_usage(session, names)
            return missing
        except asyncpg.UndefinedColumnError as error:
            if "_compressed_hypertable_" not in str(error):
                raise
            raise MigrationError(
                "this release of TimescaleDB cannot grant single columns of a table that has a columnstore, as the "
                "writer needs: upgrade the extension (2.29 can), or let applications write as the owner of the tables"
            ) from error
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError, asyncpg.InternalServerError):
            # A run in another database of the server has made the role; or a writer has made a chunk, and PostgreSQL
            # says "tuple concurrently updated": rights and chunks are noted in one row of the catalogue.
            if not left:
                raise
        await asyncio.sleep(0.1)
    raise AssertionError  # the last attempt has returned, or raised


async def _demand_usage(session: Session, names: dict[Purpose, str]) -> None:
    """Raise unless the roles got USAGE on the schema: PostgreSQL only warns if another role owns it."""
    for name in names.values():
        if not await session.connection.fetchval(SQL["has_usage"], name, session.schema):
            raise MigrationError(
                f"the schema {session.schema} belongs to another role: as its owner or a superuser run "
                f"GRANT USAGE ON SCHEMA {quoted(session.schema)} TO {quoted(name)}, then this again"
            )


async def _too_much(session: Session, names: dict[Purpose, str]) -> tuple[str, ...]:
    """Return a warning for each table that a role can do more with than it should."""
    return tuple(
        [
            f"the {purpose} {quoted(name)} also has {row['rights']} on {row['relation']}, from PUBLIC or from a role "
            "that it is a member of: revoke it there"
            for purpose, name in names.items()
            for row in await session.connection.fetch(SQL["excess"], name, FORBIDDEN[purpose])
        ]
    )


async def _views(session: Session) -> str:
    """Return the names of all views of the analytics, quoted, as GRANT takes them."""
    return str(await session.connection.fetchval(SQL["views"]))


def _create(name: str) -> str:
    return SQL["create_role"].format(role=quoted(name))


def _grants(session: Session, names: dict[Purpose, str], views: str) -> str:
    """Return the statements that give the rights."""
    roles: dict[str, str] = {purpose: quoted(name) for purpose, name in names.items()}
    texts = [SQL["rights"], *([SQL["exporter_rights"]] if "exporter" in roles else [])]
    return ";\n".join(text.format(schema=quoted(session.schema), views=views, **roles) for text in texts) + ";\n"


def _script(
    session: Session, extension_schema: str | None, names: dict[Purpose, str], missing: list[str], views: str
) -> str:
    """Return what `_apply` would do, for psql."""
    lines = ["BEGIN;", f"SET LOCAL search_path TO {session.search_path(extension_schema)};"]
    lines += [f"{_create(name)};" for name in missing]
    return "\n".join([*lines, _grants(session, names, views) + "COMMIT;"]) + "\n"
