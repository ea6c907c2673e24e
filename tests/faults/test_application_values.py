"""Values that are met again and again: they cost their caller no time without end, and their neighbours nothing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_analytics import AnalyticsClient, Event
from tests.faults.balance import assert_stored
from tests.faults.witness import Witness, accepted_ids
from tests.kit.databases import Database

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
PATIENCE = 30.0
"""Without a bound each of these would take longer than the age of the universe."""


class ValuesHeld(Event):
    value: Any


@dataclasses.dataclass
class Node:
    parent: Any = None
    children: Any = ()


class Link(msgspec.Struct):
    one: Any = None
    other: Any = None


def doubled(value: Any, make: Callable[[Any, Any], Any]) -> Any:
    for _ in range(80):
        value = make(value, value)
    return value


def lists() -> Any:
    return doubled("leaf", lambda one, other: [one, other])


def dicts() -> Any:
    return doubled(1, lambda one, other: {"one": one, "other": other})


def structs() -> Any:
    return doubled(None, Link)


def in_a_dataclass() -> Any:
    return Node(children=lists())


def a_list_that_holds_itself_twice() -> Any:
    value: list[Any] = []
    value += [value, value]
    return value


def children_that_know_their_parent() -> Any:
    root = Node()
    root.children = [Node(parent=root) for _ in range(5)]
    return root


def long_texts() -> Any:
    return [["x" * 1_000] * 1_000] * 1_000


def long_keys() -> Any:
    return [[{"k" * 1_000: 1}] * 1_000] * 1_000


def a_text_that_is_a_little_too_long() -> Any:
    return ["x" * (256 * 1024 + 1)]


SHAPES = [
    lists, dicts, structs, in_a_dataclass, a_list_that_holds_itself_twice, children_that_know_their_parent, long_texts,
    long_keys, a_text_that_is_a_little_too_long,
]  # fmt: skip


@pytest.fixture
async def client(database: Database, tmp_path: Path) -> AsyncIterator[AnalyticsClient]:
    client = Witness(str(tmp_path)).watch(AnalyticsClient.from_url(database.dsn, service="shop"))
    yield client
    client.close(5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
async def test_a_value_without_end_is_refused_soon_and_its_neighbours_are_stored(
    client: AnalyticsClient, database: Database, tmp_path: Path, shape: Callable[[], Any]
) -> None:
    value = shape()
    assert client.track(ValuesHeld(value="before"))
    begun = time.monotonic()
    assert client.track(ValuesHeld(value=value)) is False
    assert client.track_error(KeyError("x"), context={"value": value}) is False
    assert time.monotonic() - begun < PATIENCE
    assert client.track(ValuesHeld(value="after"))
    assert await client.aflush(30)
    stats = client.stats()
    assert (stats.accepted, stats.stored, stats.dropped["oversize"] + stats.dropped["invalid"]) == (2, 2, 2)
    await assert_stored(client, database, accepted_ids(tmp_path))


async def test_a_value_that_is_met_often_but_fits_is_stored_each_time(
    client: AnalyticsClient, database: Database, tmp_path: Path
) -> None:
    value: Any = "leaf"
    for _ in range(10):
        value = [value, value]
    children = [Node(children=["child"])] * 1_000
    assert client.track(ValuesHeld(value=value))
    assert client.track(ValuesHeld(value={"nodes": children, "link": Link(one=children, other=[])}))
    assert client.track(ValuesHeld(value=["x" * (255 * 1024)]))
    assert await client.aflush(30)
    await assert_stored(client, database, accepted_ids(tmp_path))
    connection = await database.connect()
    sql = "SELECT count(*) FROM analytics_events, jsonb_path_query(data, 'strict $.**') AS part WHERE part = '\"leaf\"'"
    assert await connection.fetchval(sql) == 1_024
