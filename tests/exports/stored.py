"""Rows for the export, an export to a folder, and what is in its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from uuid import UUID

import asyncpg

from asgi_analytics.errors import TransientError
from asgi_analytics.exports.base import SCHEMA, Refused, Row
from asgi_analytics.exports.exporter import Exporter, Ran
from asgi_analytics.exports.setup import init_export
from tests.kit.databases import Database

INSERT = (
    "INSERT INTO analytics_events (id, timestamp, event_type, service, user_id, session_id, data, context)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)
TYPES = ["task_created", "crate_filled", "proposal_submitted", "user_logged_in", "crate_sent", "api_request"]
USERS = [UUID(int=number + 1) for number in range(9)]


def an_event(random: Random, at: datetime | None = None, event_type: str | None = None) -> tuple[Any, ...]:
    """Return a row as `INSERT` takes it, of the last three weeks unless a time is given."""
    at = at or datetime.now(UTC) - timedelta(seconds=random.uniform(0, 20 * 86400))
    kind = event_type or random.choice(TYPES)
    data: dict[str, Any] = {"n": random.randrange(1000), "text": random.choice(["ä'\"\\", "plain", "a\nb", "日本", ""])}
    for field in random.sample(["task_id", "proposal_id", "project_id", "order_id", "cart_id"], random.randrange(4)):
        data[field] = random.choice([7, "x-1", str(UUID(int=random.getrandbits(128)))])
    context = random.choice(
        [
            None,
            {"trace_id": "a" * 32},
            {"environment": "test", "geo": {"country": "NL"}, "device": {"browser": "Firefox", "os": "Linux"}},
        ]
    )
    return (
        UUID(int=random.getrandbits(128), version=4),
        at,
        kind,
        random.choice(["shop", "search"]),
        random.choice([None, *USERS]),
        random.choice([None, "s-1"]),
        json.dumps(data),
        None if context is None else json.dumps(context),
    )


async def store(connection: asyncpg.Connection, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    await connection.executemany(INSERT, rows)
    return list(rows)


async def make(database: Database, folder: Path, name: str = "lake") -> None:
    await init_export(database.dsn, name, folder.as_uri())


async def run(database: Database, name: str = "lake", **options: Any) -> Ran:
    return await Exporter(database.dsn, name, warehouse=options.pop("warehouse", None)).run(
        **{"patience": 5.0, **options}
    )


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all files in a folder, by pyarrow."""
    from pyarrow import parquet

    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("platform_events/day=*/*.parquet")):
        rows = parquet.read_table(path, partitioning=None).to_pylist()
        assert {f"day={row['timestamp']:%Y-%m-%d}" for row in rows} == {path.parent.name}
        found += rows
    return found


def ids(rows: Sequence[Any]) -> list[str]:
    """Return the ids of rows, in order, so that two lists can be compared: none is lost, and none is there twice."""
    return sorted(row["event_id"] if isinstance(row, dict) else str(row[0]) for row in rows)


async def all_ids(connection: asyncpg.Connection) -> list[str]:
    return sorted(str(row["id"]) for row in await connection.fetch("SELECT id FROM analytics_events"))


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [dict(zip([column.name for column in SCHEMA], row, strict=True)) for row in rows]


class Fake:
    """A warehouse in memory that can fail as warehouses do. Tokens tell it what it has already."""

    max_rows: ClassVar[int] = 40

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.tokens: dict[str, list[str]] = {}
        self.refused: set[str] = set()
        self.tells_places = False
        self.failures: list[Exception] = []
        self.lose_answer: Any = None
        self.erased: list[str] = []

    def prepare(self, schema: Any) -> None:
        assert schema == SCHEMA

    def load(self, batch: Sequence[Row], token: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        assert 0 < len(batch) <= self.max_rows
        places = [place for place, row in enumerate(batch) if row[0] in self.refused]
        if places:
            raise Refused("a row is not valid", places if self.tells_places else ())
        if token in self.tokens:
            assert self.tokens[token] == [row[0] for row in batch], "a token came again with other rows"
        else:
            self.tokens[token] = [row[0] for row in batch]
            self.rows += batch
        if self.lose_answer is not None and self.lose_answer():
            raise TransientError("the answer was lost")

    def erase(self, user_ids: Sequence[str]) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.erased += user_ids
        before = len(self.rows)
        self.rows = [row for row in self.rows if row[3] not in user_ids]
        return before - len(self.rows)

    def close(self) -> None:
        pass
