"""One request at work: its connection and its person, and the log that is written with each transaction."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import asyncpg
import msgspec

from asgi_analytics.admin.subjects.anonymous import Anonymous
from asgi_analytics.admin.subjects.report import Exported, Kind, Request
from asgi_analytics.database.blocks import Blocks, load
from asgi_analytics.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asgi_analytics.admin.subjects.subject import Subject

SQL = load("asgi_analytics.admin.subjects", "subjects.sql")

ATTEMPTS = 10
"""How often a transaction is tried that meets another one: a policy that compresses the same chunk, or a writer."""

NO_IDS = frozenset({"boolean", "date", "double precision", "interval", "real", "timestamp with time zone"})
"""Types of columns that can hold no id."""

STATISTICS_LEFT = (
    "the planner's statistics of {0} show the id, because of rows that quote it, or because the table has no rows left "
    "and a server before PostgreSQL 18 keeps them until it has some; a superuser may remove them: "
    "DELETE FROM pg_statistic WHERE starelid = '{0}'::regclass"
)

PREFETCH = 200
"""Rows of an export that are in memory at once, about."""


class Table(msgspec.Struct, kw_only=True):
    """One of our tables, or the view of what an aggregate holds, and what it says of persons."""

    name: str
    relation: str
    """The name as it stands in SQL."""
    says_none: bool
    columns: dict[str, str]
    """The type of each column, by its name as it stands in SQL."""
    forms: dict[str, str]
    """In which form a column holds a person, by its name as it stands in SQL."""
    times: tuple[str, ...]
    """The columns with a time or a day."""
    blocks: Blocks
    """The SQL of the database that it is in."""

    def columns_of(self, *forms: str) -> list[str]:
        """Return the columns that hold a person in one of these forms."""
        return [column for column, form in self.forms.items() if form in forms]

    def is_filled(self) -> bool:
        """Tell whether a refresh fills it, and no writer does."""
        return self.name.endswith("_filled")

    def sql(self, block: str, **names: str) -> str:
        """Return a block of SQL about this table."""
        sql = self.blocks[block].replace("{relation}", self.relation)
        for place, name in names.items():
            sql = sql.replace(f"{{{place}}}", name)
        if "{said}" in sql:
            said = [_said(f"t.{column}", type_) for column, type_ in self.columns.items()]
            sql = sql.replace("{said}", ", ".join([one for one in said if one]) or "NULL")
        if "{row}" in sql or "{columns}" in sql:
            columns = ", ".join(f"t.{column}" for column in self.columns)
            listed = msgspec.json.encode([column[1:-1].replace('""', '"') for column in self.columns]).decode()
            literal = listed.replace("'", "''")
            sql = sql.replace("{row}", f"person_row('{literal}', {columns})").replace("{columns}", columns)
        return sql


def _said(column: str, type_: str) -> str | None:
    """Return what of a column is looked through for an id, as it stands in JSON; None if it can hold none."""
    if type_.removesuffix("[]") in NO_IDS:
        return None
    if type_ in ("uuid", "jsonb"):
        return column
    return f"':' || {column}" if type_ in ("bigint", "integer", "smallint") else f"to_json({column})"


async def find_tables(connection: Any, sql: Blocks = SQL) -> list[Table]:
    """Return every table of ours, with what it says of persons."""
    tables: dict[str, Table] = {}
    for row in await connection.fetch(sql["declared"]):
        table = tables.setdefault(
            row["name"],
            Table(
                name=row["name"],
                relation=row["relation"],
                says_none=bool(row["says_none"]),
                columns={},
                forms={},
                times=(),
                blocks=sql,
            ),
        )
        table.columns[row["quoted"]] = row["type"]
        if row["form"] is not None:
            table.forms[row["quoted"]] = row["form"]
        if row["is_time"]:
            table.times = (*table.times, row["column"])
    return list(tables.values())


class Work:
    """What the places of a person are given: the connection and its SQL, who it is, and where to count."""

    sql: ClassVar[Blocks] = SQL

    def __init__(
        self,
        connection: Any,
        subject: Subject,
        request: Request,
        tables: list[Table],
        spool: Path | None,
        personal: Mapping[str, frozenset[str]],
    ) -> None:
        self.connection = connection
        self.subject = subject
        self.request = request
        self.tables = tables
        self.spool = spool
        self.anonymous = Anonymous(subject, personal)
        self.warnings: list[str] = []

    async def run(self, change: Callable[[], Awaitable[None]]) -> None:
        """Call ``change`` in a transaction, again if another one was in its way."""
        for left in reversed(range(ATTEMPTS)):
            try:
                async with self.transaction():
                    await change()
                return
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.InternalServerError) as error:
                is_meeting = not isinstance(error, asyncpg.InternalServerError) or "concurrently" in str(error)
                if not left or not is_meeting:
                    raise
            await asyncio.sleep(0.2)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Begin a transaction that may take columns apart."""
        async with self.connection.transaction():
            await self.connection.fetch(SQL["settings"])
            yield

    def reading(self) -> AbstractAsyncContextManager[None]:
        """Begin what reads rows one by one, and changes nothing."""
        return self.transaction()

    async def join_sessions(self, gone: Sequence[Any], since: Any, until: Any) -> None:
        """Bring the filled sessions in line with the parts that are left, from ``since`` up to ``until``.

        Only those of the keys that lost a part: nobody else's have changed.
        """
        await self.connection.execute(SQL["fill_sessions"], since, until, list({part["key"] for part in gone}))

    async def refresh_statistics(self) -> None:
        """Take the planner's statistics anew where they quote the id: they show the most common values.

        They are removed first, because ANALYZE leaves those of a table as they are in which it finds no row.
        """
        may_be_left = False
        for relation in await self._quoting_statistics():
            try:
                await self.connection.execute(SQL["clear_statistics"], relation)
            except asyncpg.UndefinedFunctionError:
                may_be_left = True
            await self.connection.execute(SQL["analyze"].replace("{relation}", relation))
        if may_be_left:
            self.warnings += [STATISTICS_LEFT.format(relation) for relation in await self._quoting_statistics()]

    async def _quoting_statistics(self) -> list[str]:
        rows = await self.connection.fetch(SQL["quoting_statistics"], *self.subject.needles())
        return [row["relation"] for row in rows]

    async def overwrite(self) -> None:
        """Overwrite what is deleted, where nobody else does it: a server reuses the room in its files by itself."""

    async def count(self, table: str, number: int) -> None:
        """Log so many rows of a table, in the transaction that is open."""
        if number:
            await self.connection.execute(self.sql["count_rows"], self.request.id, table, number)

    async def execute(self, table: str, sql: str, *arguments: Any) -> int:
        """Execute a statement that changes rows; count and return them."""
        status: str = await self.connection.execute(sql, *arguments)
        number = int(status.rpartition(" ")[2])
        await self.count(table, number)
        return number

    async def rows(self, table: str, sql: str, *arguments: Any) -> AsyncIterator[Exported]:
        """Yield the rows of a table; the columns ``at`` and ``id`` say when and which, ``row`` is the JSON."""
        number = 0
        async with self.reading():
            async for row in self.connection.cursor(sql, *arguments, prefetch=PREFETCH):
                number += 1
                yield Exported(
                    table=table, timestamp=row.get("at"), id=row.get("id"), row=msgspec.Raw(row["row"].encode())
                )
        await self.count(table, number)


async def open_request(connection: Any, subject: Subject, kind: Kind, sql: Blocks = SQL) -> Request:
    """Return the open request of this kind for a person; a new one unless one was interrupted."""
    hashed = await keyed_hash(connection, subject, sql)
    while True:
        await connection.execute(sql["open_request"], hashed, kind)
        row = await connection.fetchrow(sql["opened_request"], hashed, kind)
        if row is not None:  # else another run has just completed it
            return request_of(row)


async def keyed_hash(connection: Any, subject: Subject, sql: Blocks = SQL) -> str:
    """Return what the log has of a person."""
    await connection.execute(sql["make_key"])
    return subject.keyed_hash(await connection.fetchval(sql["key"]))


async def complete_request(connection: Any, request: Request, sql: Blocks = SQL) -> Request:
    """Return a request, completed."""
    row = await connection.fetchrow(sql["complete_request"], request.id)
    if row is None:
        raise MigrationError(f"the request {request.id} has gone from analytics_subject_requests: run this again")
    return request_of(row)


def request_of(row: Any) -> Request:
    """Return a row of the log."""
    return msgspec.convert({**row, "rows": msgspec.json.decode(row["rows"])}, Request)
