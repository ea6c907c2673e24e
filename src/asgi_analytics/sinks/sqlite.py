"""The sink that writes to an SQLite database: a file, without any server."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from asgi_analytics.database import blocks
from asgi_analytics.database.sqlite.connection import SqliteKeeper, transaction
from asgi_analytics.database.sqlite.failures import explain
from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.database.sqlite.upkeep import SqliteUpkeep, forget_visitors
from asgi_analytics.database.sqlite.url import read_sqlite_url
from asgi_analytics.encoding.metric_record import metrics_in
from asgi_analytics.errors import OperatorError, SinkError, TransientError
from asgi_analytics.events.base import categories_to_note, definitions
from asgi_analytics.log import log
from asgi_analytics.sinks.base import Receipt, Rejected, StoredSchema
from asgi_analytics.sinks.dead_letters import Refusal, dead_letter
from asgi_analytics.sinks.sqlite_rows import Unfit, hours_of, read_event, read_events, read_metric
from asgi_analytics.sinks.sqlite_traits import note_traits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import date
    from typing import Any

T = TypeVar("T")

SQL = blocks.load("asgi_analytics.sinks", "sqlite.sql")
_DAY = timedelta(days=1)


class SqliteSink:
    """Writes each batch in one idempotent transaction; a batch is stored whole, or not at all.

    ``url`` is ``sqlite:///analytics.db``; the file and its tables are made by ``analytics-migrate all``. Any number of
    threads and processes of one machine may write at once: each waits for its turn. Nothing is opened before the first
    write, and a child of a fork opens its own connection. Events that are no rows go to ``analytics_dead_letters``, in
    the same transaction.

    On a loop of an application each write runs in a thread of the loop's executor.
    """

    schemes: ClassVar[tuple[str, ...]] = ("sqlite",)
    tells_duplicates: ClassVar[bool] = True

    def __init__(self, url: str) -> None:
        self._url = read_sqlite_url(url)
        self._keeper = SqliteKeeper(self._url)
        self._upkeep = SqliteUpkeep(self._url)
        self._noted: dict[str, str] = {}
        self._definitions = 0
        self._left_noting = False

    @classmethod
    def from_url(cls, url: str, *, token: str | None = None) -> Self:
        """Return a sink for ``sqlite:///analytics.db``."""
        return cls(url)

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Store a batch, and the events that are no rows among the dead letters. Raises `SinkError`."""
        if not batch:
            return Receipt()

        def store(connection: sqlite3.Connection) -> Receipt:
            if self._definitions != (newest := definitions()):
                self._note_types(connection, categories_to_note())
                self._definitions = newest
            return _store(connection, batch)

        return await self._run(store)

    async def ready(self) -> None:
        """Return when a batch could be stored now. Raises `SinkError` that says what is in the way."""

        def look(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return len(connection.execute(SQL["tables"]).fetchall())

        if await self._run(look) != 3:
            raise OperatorError(f"the tables are missing in {self._url}: run analytics-migrate all")

    async def upkeep(self) -> None:
        """Fill the aggregates, drop what is past its retention, and cut the log, unless another process does it.

        In many small transactions, between which others write.
        """
        self._definitions = 0
        work = self._upkeep.steps()
        while True:
            if await self._run_alone(partial(next, work, None)) is None:
                return
            await asyncio.sleep(0)  # a write that waits gets its turn

    async def note_event_types(self, categories: Mapping[str, str]) -> None:
        """Let the database know the categories of types, unless this sink has done so."""
        await self._run(partial(self._note_types, categories=categories))

    def _note_types(self, connection: sqlite3.Connection, categories: Mapping[str, str]) -> None:
        """Note the categories before the first row of a type is stored, so that none is dropped too early."""
        new = {name: category for name, category in categories.items() if self._noted.get(name) != category}
        if not new:
            return
        rows = [{"event_type": name, "category": category} for name, category in new.items()]
        try:
            with transaction(connection):
                connection.executemany(SQL["note_event_type"], rows)
        except sqlite3.OperationalError as error:
            if not str(error).startswith("no such table"):
                raise
            if not self._left_noting:
                self._left_noting = True
                log.warning(
                    "rows of these types are kept as long as interactions, because the database does not take their "
                    "category: run analytics-migrate all; types: %d", len(new)
                )  # fmt: skip
            return  # the next upkeep lets it be tried again
        self._noted |= new

    async def kept_types(self) -> Mapping[str | None, timedelta]:
        """Return for how long the rows of each type are kept, and under None those of all others."""

        def ask(connection: sqlite3.Connection) -> dict[str | None, timedelta]:
            return {event_type: timedelta(days=days) for event_type, days in connection.execute(SQL["kept_types"])}

        return await self._run(ask)

    async def schemas_fingerprint(self) -> str:
        """Return what changes with the schemas that events are checked by."""

        def ask(connection: sqlite3.Connection) -> str:
            return str(connection.execute(SQL["schemas_fingerprint"]).fetchone()[0])

        return await self._run(ask)

    async def active_schemas(self) -> Sequence[StoredSchema]:
        """Return the schemas that events are checked by."""

        def ask(connection: sqlite3.Connection) -> list[StoredSchema]:
            rows = connection.execute(SQL["active_schemas"])
            return [StoredSchema(name, definition, bool(needs_user)) for name, definition, needs_user in rows]

        return await self._run(ask)

    async def visitor_key(self, day: date) -> bytes | None:
        """Return the key that all processes count the visitors of a day by; None for a day that is over for long."""
        today = datetime.now(UTC).date()

        def ask(connection: sqlite3.Connection) -> bytes | None:
            with transaction(connection):
                forget_visitors(connection)
                if not today - _DAY <= day <= today + _DAY:
                    return None
                connection.execute(SQL["make_visitor_key"], (day.isoformat(), secrets.token_bytes(32)))
                key: bytes = connection.execute(SQL["visitor_key"], (day.isoformat(),)).fetchone()[0]
                return key

        return await self._run(ask)

    async def seen_visitors(self, visitors: Mapping[str, datetime]) -> Collection[str]:
        """Return the visitors that any process has noted at most 30 minutes before the time that is given."""

        def ask(connection: sqlite3.Connection) -> set[str]:
            return {
                visitor
                for visitor, moment in visitors.items()
                if connection.execute(
                    SQL["seen_visitor"], (visitor, to_text(moment - timedelta(minutes=30)))
                ).fetchone()
            }

        return await self._run(ask)

    async def note_visitors(self, visitors: Mapping[str, datetime]) -> None:
        """Note when visitors were seen."""

        def note(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                rows = [(visitor, to_text(moment)) for visitor, moment in visitors.items()]
                connection.executemany(SQL["note_visitor"], rows)

        await self._run(note)

    async def aclose(self) -> None:
        """Close the connections."""
        await _in_thread(self._keeper.close)
        await _in_thread(self._upkeep.close)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def on_connection() -> T:
            with self._keeper.connection() as connection:
                return work(connection)

        return await self._run_alone(on_connection)

    async def _run_alone(self, work: Callable[[], T]) -> T:
        try:
            return await _in_thread(work)
        except SinkError:
            raise
        except (sqlite3.Error, OSError) as error:
            failure = explain(error, self._url)
            if failure.kind == "operator":
                raise OperatorError(failure.text) from error
            raise TransientError(failure.text) from error


async def _in_thread(work: Callable[[], T]) -> T:
    """Do some work in the loop's executor; here where the interpreter is ending, and takes none any more."""
    loop = asyncio.get_running_loop()
    try:
        future = loop.run_in_executor(None, work)
    except RuntimeError:
        return work()
    return await future


def _store(connection: sqlite3.Connection, batch: Sequence[bytes]) -> Receipt:
    """Store a batch: the quick way where all of it are events that are as they should be and were never sent before."""
    metric_at = metrics_in(batch)
    if not metric_at and (rows := read_events(batch)) is not None:
        try:
            with transaction(connection):
                connection.executemany(SQL["store_new_events"], rows)
                connection.executemany(SQL["note_events"], hours_of(rows))
                note_traits(connection, rows, SQL)
            return Receipt(duplicate_at=())
        except sqlite3.IntegrityError:
            pass  # one of them is there already, or breaks a rule: nothing is stored yet
    with transaction(connection):
        return _store_each(connection, batch, set(metric_at))


def _store_each(connection: sqlite3.Connection, batch: Sequence[bytes], metric_at: Collection[int]) -> Receipt:
    """Store a batch row by row, and note what became of each."""
    refused: dict[int, Refusal] = {}
    duplicate_at: list[int] = []
    stored: dict[str, list[tuple[Any, ...]]] = {"events": [], "metrics": []}
    for place, line in enumerate(batch):
        kind = "metrics" if place in metric_at else "events"
        try:
            row = read_metric(line) if kind == "metrics" else read_event(line)
            # A statement that fails takes back what it did, and nothing else.
            if connection.execute(SQL[f"store_{kind}"], row).rowcount:
                stored[kind].append(row)
            else:
                duplicate_at.append(place)
        except Unfit as unfit:
            refused[place] = unfit.refusal
        except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
            refused[place] = _refusal(error)
    for kind, rows in stored.items():
        connection.executemany(SQL[f"note_{kind}"], hours_of(rows))
    note_traits(connection, stored["events"], SQL)
    if refused:
        letters = [dead_letter(batch[place], refusal) for place, refusal in sorted(refused.items())]
        connection.executemany(SQL["store_dead_letters"], [(str(letter[0]), *letter[1:]) for letter in letters])
    return Receipt(
        duplicates=len(duplicate_at),
        rejected=[Rejected(index=place, reason=refusal.reason) for place, refusal in sorted(refused.items())],
        duplicate_at=duplicate_at,
    )


def _refusal(error: Exception) -> Refusal:
    """Return the refusal of a rule of the table, with the SQLSTATE that PostgreSQL has for it."""
    name = getattr(error, "sqlite_errorname", "")
    said = str(error)
    if name == "SQLITE_CONSTRAINT_CHECK":
        rule = said.removeprefix("CHECK constraint failed: ")
        return Refusal.of("23514", rule if rule.isidentifier() else None)
    return Refusal.of({"SQLITE_CONSTRAINT_NOTNULL": "23502", "SQLITE_TOOBIG": "54000"}.get(name, "22000"))
