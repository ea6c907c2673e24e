"""People whose data is asked for, what is stored of them everywhere, and how all of a database is searched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from datetime import datetime
from hashlib import md5
from pathlib import Path
from random import Random
from typing import Any, cast
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid5

import asyncpg

from asgi_analytics.admin.refresh import refresh
from asgi_analytics.admin.subjects.work import find_tables
from asgi_analytics.events import USER_NAMESPACE
from asgi_analytics.sinks.spool_lines import pack
from tests.kit.databases import Database
from tests.kit.sessions import sessions
from tests.kit.sqlite import SqliteConnection
from tests.kit.visits import random_visits
from tests.reading.happened import Event, random_events
from tests.schema.expected import assert_same, expected
from tests.schema.happenings import all_rows, in_order, midnight, now

ANN = "customer-4711 \"ä\\%_'"
"""Is erased: an id that trips over quotes, in SQL, JSON, LIKE and regular expressions."""
BEN = UUID("0198c0de-77aa-7bcd-8eef-0123456789ab")
"""Is anonymised."""
EVE = UUID("0198c0de-77aa-7bcd-8eef-fedcba987654")
QUOTED = "QUOTED"
"""Stands in every row of others that quotes Ann or Ben."""
MENTIONED = [
    ("analytics_dead_letters", "payload"),
    ("analytics_events", "data.deep[0].buyer"),
    ("analytics_events", "data.note"),
]
"""Where others quote Ann."""


def uuid_of(user: UUID | str) -> UUID:
    return user if isinstance(user, UUID) else uuid5(USER_NAMESPACE, user)


def spellings(user: UUID | str) -> list[str]:
    """Return every form in which a dump may hold an id, in lower case."""
    uuid = uuid_of(user)
    hashed = UUID(md5(str(uuid).encode(), usedforsecurity=False).hexdigest())
    found = [str(uuid), uuid.hex, str(hashed), hashed.hex]
    return found if isinstance(user, UUID) else [*found, "customer-4711"]


def a_row(random: Random, at: datetime, kind: str, user: UUID | str | None, **data: Any) -> Event:
    """Return one event, as a client would send it."""
    context: dict[str, Any] = {"trace_id": "t"}
    if isinstance(user, str):
        context["user_key"] = user
    return Event(
        id=UUID(int=random.getrandbits(128), version=4),
        timestamp=at,
        event_type=kind,
        service="shop",
        user_id=None if user is None else uuid_of(user),
        session_id=None,
        data=data,
        context=context,
    )


def months(random: Random, days: int = 12) -> list[Event]:
    """Return events and visits of many people over some days; two of them are Ann and Ben."""
    events = random_events(random, 400, midnight(days), now()) + random_visits(random, 300, midnight(days), now())
    known: dict[UUID | None, UUID | str | None] = {UUID(int=3): ANN, UUID(int=4): BEN, UUID(int=5): EVE}
    people: list[Event] = []
    for event in events:
        user = known.get(event.user_id, event.user_id)
        # The independent computation of the views knows no environments.
        context = event.context and {name: value for name, value in event.context.items() if name != "environment"}
        if isinstance(user, str):
            context = {**(context or {}), "user_key": user}
        people.append(event._replace(user_id=None if user is None else uuid_of(user), context=context))
    return people


def told(random: Random) -> list[Event]:
    """Return what Ann and Ben did in words that name them."""
    rows = []
    for user in (ANN, BEN):
        uuid = uuid_of(user)
        rows += [
            a_row(random, midnight(3), "user_identified", user, plan="pro", email="a@example.com"),
            a_row(random, midnight(3), "page_view", user, page=f"/users/{uuid}/orders", channel="direct"),
            a_row(
                random, midnight(2), "application_error", user, error_type="E", fingerprint="own",
                error_message=f"!{uuid.hex} or {user} is wrong",
            ),
            a_row(
                random, midnight(2), "order_placed", user,
                total=3, email="a@example.com", owner={"user_id": str(user)},
            ),
        ]  # fmt: skip
    return rows


def without(event: Event) -> Event:
    """Return what is left of an event of Ben, as the page on it says; written down here by hand."""
    context = event.context and {name: value for name, value in event.context.items() if name != "visitor"}
    data = {name: value for name, value in event.data.items() if name != "email"}
    if event.event_type == "user_identified":
        data = {}
    if "page" in data:
        data["page"] = data["page"].replace(str(BEN), "***")
    if str(BEN) in str(data.get("error_message")):
        data["error_message"] = "!*** or *** is wrong"
    if "owner" in data:
        data["owner"] = {}
    return event._replace(user_id=None, session_id=None, context=context, data=data)


def mentioned(random: Random) -> list[Event]:
    """Return what others did and said of Ann and Ben."""
    return [
        a_row(random, midnight(2), "order_placed", EVE, note=f"{QUOTED} for {ANN}!"),
        a_row(random, midnight(2), "order_placed", EVE, deep=[{"buyer": str(uuid_of(ANN)).upper(), "why": QUOTED}]),
        a_row(random, midnight(1), "order_placed", None, buyer=BEN.hex, why=QUOTED),
        a_row(random, midnight(1), "task_created", EVE, reviewer_id=str(BEN), why=QUOTED),
    ]


def line_of(event: Event) -> bytes:
    """Return the JSON of an event, as it is sent."""
    row = event._asdict()
    return json.dumps({
        "event_id": str(row.pop("id")),
        **row,
        "timestamp": event.timestamp.isoformat(),
        "user_id": event.user_id and str(event.user_id),
    }).encode()  # fmt: skip


async def refreshed(connection: asyncpg.Connection | SqliteConnection) -> None:
    """Bring the aggregates up to date."""
    if isinstance(connection, SqliteConnection):
        connection.fill()
    else:
        await refresh(connection)


async def add_dead_letters(connection: asyncpg.Connection | SqliteConnection, payloads: Iterable[bytes | str]) -> None:
    for number, payload in enumerate(payloads):
        text = payload.decode() if isinstance(payload, bytes) else payload
        await connection.execute(
            "INSERT INTO analytics_dead_letters (id, reason, payload) VALUES ($1, 'refused', $2)",
            UUID(int=number + 1),
            text,
        )


def left_spool(root: Path, lines: Iterable[bytes], name: str = "1-0000000a") -> Path:
    """Leave the folder of a dead process with these lines, a damaged one after each, and return its segment."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "lock").write_bytes(b"target")
    segment = folder / "000000000001.spool"
    segment.write_bytes(b"".join(pack([line]) + b"00000000 damaged\n" for line in lines) + b"torn")
    return segment


async def everything(connection: asyncpg.Connection, without: UUID) -> dict[str, list[str]]:
    """Return the rows of every table that are not a user's, as text, in order; without the log of requests."""
    found: dict[str, list[str]] = {}
    for table in await find_tables(connection):
        if table.name.startswith("analytics_subject") or table.name in ("analytics_changes", "analytics_stale"):
            continue
        columns = [column for column in table.columns if column in ("user_id", "who", "payload")]
        hashed = UUID(md5(str(without).encode(), usedforsecurity=False).hexdigest())
        others = [f"coalesce({column}::text, '') NOT LIKE ALL ($1::text[])" for column in columns]
        condition = " AND ".join(others) if others else "$1::text[] IS NOT NULL"
        rows = await connection.fetch(
            f"SELECT t::text AS row FROM {table.relation} AS t WHERE {condition} ORDER BY 1",
            [f"%{without}%", f"%{hashed}%"],
        )
        found[table.name] = [row["row"] for row in rows]
    return found


async def assert_views(connection: asyncpg.Connection, events: list[Event]) -> None:
    """Compare every view with an independent computation; that of sessions is of `tests.kit.sessions`."""
    wanted: dict[str, Any] = expected(cast("Any", events))
    found = await all_rows(connection)
    assert_same(found, {view: rows for view, rows in wanted.items() if "session" not in view})
    assert found["analytics_sessions"] == in_order([session.row() for session in sessions(events)])


async def rows_with(connection: asyncpg.Connection, needle: str) -> dict[str, int]:
    """Return how many rows of any table, of ours, TimescaleDB's and the system's, have a text; by table."""
    tables = await connection.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('information_schema')"
        " AND (n.nspname <> 'pg_catalog' OR c.relname IN ('pg_statistic', 'pg_statistic_ext_data', 'pg_description'))"
    )
    found = {}
    for (name,) in tables:
        sql = f"SELECT count(*) FROM ONLY {name} AS t WHERE strpos(lower(t::text), $1) > 0"
        if number := await connection.fetchval(sql, needle):
            found[str(name)] = number
    return found


def dump(database: Database) -> str:
    """Return a dump of the whole database, in lower case."""
    parts = urlsplit(database.dsn)
    command = [database.cluster.program("pg_dump"), "--statistics", "-h", str(parts.hostname), "-p", str(parts.port)]
    done = subprocess.run(
        [*command, "-U", str(parts.username), database.name],
        env={"PGPASSWORD": unquote(parts.password or "")},
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().lower()
