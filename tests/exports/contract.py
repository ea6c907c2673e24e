"""What every warehouse does: subclass it in a file of its tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from asgi_analytics.exports.base import SCHEMA, Row, Warehouse
from tests.exports.stored import as_dicts

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
JSON = [column.name for column in SCHEMA if column.kind == "json"]
USER = str(UUID(int=5))


def some_rows(number: int, seed: int = 1) -> list[Row]:
    """Return rows with what breaks careless warehouses, of three days."""
    random = Random(seed)
    texts = [None, "", "plain", "ä 日本 'q\" \\ \n\t|", "\\N", "null", "{}", "a,b;c"]
    rows: list[Row] = []
    for place in range(number):
        data = {"place": place, "text": random.choice(texts), "number": random.choice([1.5, 2**53, -0.25, True, None])}
        rows.append(
            (
                str(UUID(int=random.getrandbits(128))), "task_created", "system",
                random.choice([None, USER, str(UUID(int=6))]), random.choice(texts[:-1]),
                random.choice([None, 0, -3, 2000]), "task", random.choice(texts), json.dumps(data),
                random.choice([None, "{}", '{"k": ["ä", null]}']), "shop",
                NOON + timedelta(hours=random.randrange(60), microseconds=random.randrange(10**6)),
                random.choice(texts), random.choice([None, '{"country": "NL"}']), None, NOON,
            )
        )  # fmt: skip
    return rows


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its JSON read, so that spaces and the order of keys do not count."""
    read = {name: json.loads(row[name]) if isinstance(row[name], str) else row[name] for name in JSON}
    return row | read


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the keys of its JSON that are null."""
    left = {
        name: {key: value for key, value in row[name].items() if value is not None}
        for name in JSON
        if isinstance(row[name], dict)
    }
    return row | left


class WarehouseContract:
    """The subclass has ``warehouse``, a fixture, and ``read``: all rows as dictionaries, by the engine's own means."""

    loses_nulls = False
    """The stand-in fills objects of a JSON column with the keys of others."""

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        raise NotImplementedError  # each engine reads what it has by means of its own

    def same(self, warehouse: Warehouse, rows: list[Row]) -> None:
        found = sorted(map(plain, self.read(warehouse)), key=lambda row: str(row["event_id"]))
        wanted = sorted(map(plain, as_dicts(rows)), key=lambda row: str(row["event_id"]))
        assert [row["event_id"] for row in found] == [row["event_id"] for row in wanted]
        for one, other in zip(found, wanted, strict=True):
            if self.loses_nulls:
                one, other = without_nulls(one), without_nulls(other)
            differing = {name: (one[name], other[name]) for name in other if one[name] != other[name]}
            assert not differing, f"found, wanted: {differing}"

    def test_what_is_loaded_can_be_read_as_it_was(self, warehouse: Warehouse) -> None:
        assert isinstance(warehouse, Warehouse)
        warehouse.prepare(SCHEMA)
        rows = some_rows(100)
        warehouse.load(rows, "t-1")
        self.same(warehouse, rows)
        warehouse.close()

    def test_a_batch_that_comes_again_is_there_once(self, warehouse: Warehouse) -> None:
        for _ in range(2):
            warehouse.prepare(SCHEMA)
        first, second = some_rows(30), some_rows(30, 2)
        warehouse.load(first, "t-1")
        warehouse.load(first, "t-1")
        warehouse.load(second, "t-2")
        warehouse.close()
        warehouse.load(first, "t-1")
        self.same(warehouse, [*first, *second])
        warehouse.close()

    def test_the_rows_of_a_user_can_be_erased(self, warehouse: Warehouse) -> None:
        warehouse.prepare(SCHEMA)
        assert warehouse.erase([USER]) == 0
        rows = some_rows(60)
        warehouse.load(rows[:40], "t-1")
        warehouse.load(rows[40:], "t-2")
        left = [row for row in rows if row[3] != USER]
        assert warehouse.erase([USER, str(UUID(int=77))]) == len(rows) - len(left) > 0
        assert warehouse.erase([USER]) == 0
        self.same(warehouse, left)
        assert warehouse.erase([str(UUID(int=6))]) > 0
        self.same(warehouse, [row for row in left if row[3] is None])
        warehouse.close()
