"""What is replaced in asyncpg looks like the original, and is put back."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from typing import Any

import asyncpg
import asyncpg.cursor
import asyncpg.pool
import asyncpg.prepared_stmt
import asyncpg.utils
import pytest

from asgi_analytics.instrumentation.asyncpg import instrument_asyncpg
from asgi_analytics.testing import capture_events
from tests.instrumentation.queries.asked import brief, queries

OWNERS: list[Any] = [
    asyncpg.connection.Connection,
    asyncpg.prepared_stmt.PreparedStatement,
    asyncpg.cursor.BaseCursor,
    asyncpg.cursor.Cursor,
    asyncpg.cursor.CursorIterator,
    asyncpg.pool.PoolConnectionHolder,
    asyncpg.pool.PoolConnectionProxy,
    asyncpg.pool.Pool,
    asyncpg.utils,
]


def everything() -> dict[tuple[str, str], Any]:
    return {(owner.__name__, name): value for owner in OWNERS for name, value in vars(owner).items()}


def test_uninstrument_leaves_no_trace() -> None:
    before = everything()
    with capture_events() as captured:
        first, second = instrument_asyncpg(captured.client), instrument_asyncpg(captured.client, sample_rate=0.5)
        during = everything()
        assert {key for key in during if during[key] is not before[key]}
        second.uninstrument()
        after = everything()
        assert list(after) == list(before)
        assert all(after[key] is before[key] for key in before)
        again = instrument_asyncpg(captured.client)
        first.uninstrument()
        assert any(value is not before[key] for key, value in everything().items())
        again.uninstrument()
    assert all(value is before[key] for key, value in everything().items())


def test_a_replacement_looks_like_the_original() -> None:
    def facts() -> dict[tuple[str, str], tuple[Any, ...]]:
        return {
            key: (
                type(value),
                inspect.signature(value),
                inspect.iscoroutinefunction(value),
                inspect.getdoc(value),
                value.__name__,
                value.__qualname__,
                value.__module__,
                value.__annotations__,
            )
            for key, value in everything().items()
            if inspect.isfunction(value)
        }

    before = facts()
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        during = facts()
        handle.uninstrument()
    assert during == before


def test_a_replacement_is_pickled_and_copied_by_its_name() -> None:
    before = everything()
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        replaced = [value for key, value in everything().items() if value is not before[key]]
        assert len(replaced) > 20
        for function in replaced:
            assert pickle.loads(pickle.dumps(function)) is function
            assert copy.deepcopy(function) is copy.copy(function) is function
        handle.uninstrument()


async def test_a_method_that_binds_in_its_own_way_is_called_by_it(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bound:
        """Takes no connection: the descriptor protocol gives it one."""

        def __init__(self, function: Any) -> None:
            self.function = function

        def __get__(self, instance: Any, owner: Any) -> Any:
            return self if instance is None else functools.partial(self.function, instance)

        def __call__(self, *args: Any) -> None:
            raise AssertionError("not bound")

    monkeypatch.setattr(asyncpg.connection.Connection, "fetch", Bound(asyncpg.connection.Connection.fetch))
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        assert len(await connection.fetch("SELECT 1")) == 1
        handle.uninstrument()
        await connection.close()
        assert brief(captured) == [("SELECT", 1, "ok")]


async def test_a_replacement_that_outlived_us_is_not_replaced_again(dsn: str) -> None:
    original = asyncpg.connection.Connection.fetch
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        dead = asyncpg.connection.Connection.fetch
        handle.uninstrument()
        asyncpg.connection.Connection.fetch = dead  # what a tool does that had found it, and is taken away later
        handle = instrument_asyncpg(captured.client)
        assert inspect.unwrap(asyncpg.connection.Connection.fetch, stop=lambda f: f is dead) is original
        connection = await asyncpg.connect(dsn)
        await connection.fetch("CREATE TEMP TABLE u AS SELECT 1")
        await connection.close()
        handle.uninstrument()
        assert brief(captured) == [("CREATE", 1, "ok")]
    assert asyncpg.connection.Connection.fetch is original


async def test_rows_that_cannot_be_counted_are_not_known(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(list[Any]):
        def __bool__(self) -> bool:
            raise RuntimeError("odd")

    async def fetch(connection: Any, query: str) -> Any:
        return Odd()

    monkeypatch.setattr(asyncpg.connection.Connection, "fetch", fetch)
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        assert type(await connection.fetch("SELECT 1")) is Odd
        handle.uninstrument()
        await connection.close()
        assert brief(captured) == [("SELECT", None, "ok")]


async def test_the_last_client_gets_the_events(dsn: str) -> None:
    with capture_events(service="first") as first, capture_events(service="second") as second:
        instrument_asyncpg(first.client)
        handle = instrument_asyncpg(second.client)
        connection = await asyncpg.connect(dsn)
        await connection.fetch("SELECT 1")
        handle.uninstrument()
        await connection.close()
        assert (len(queries(first)), len(queries(second))) == (0, 1)


async def test_a_query_that_ends_after_uninstrument_is_captured(dsn: str) -> None:
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        pending = asyncio.create_task(connection.fetchval("SELECT 7 FROM pg_sleep(0.2)"))
        await asyncio.sleep(0.05)
        handle.uninstrument()
        assert await pending == 7
        await connection.fetch("SELECT 1")
        await connection.close()
        assert len(queries(captured)) == 1


async def test_a_missing_target_is_left_out_with_a_warning(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(asyncpg.connection.Connection, "fetchmany")
    monkeypatch.delattr(asyncpg.cursor.Cursor, "forward")
    with capture_events() as captured:
        with pytest.warns(RuntimeWarning) as caught:
            handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        await connection.fetch("SELECT 1")
        handle.uninstrument()
        await connection.close()
        assert len(queries(captured)) == 1
    assert ["Connection.fetchmany" in str(caught[0].message), "Cursor.forward" in str(caught[1].message)] == [True] * 2
    assert len(caught) == 2
    assert caught[0].filename == __file__


async def test_an_execute_that_gives_no_tag_is_left_alone(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = asyncpg.connection.Connection._execute

    async def of_another_version(
        self: Any, query: Any, args: Any, limit: Any, timeout: Any, *, record_class: Any = None
    ) -> Any:
        return await original(self, query, args, limit, timeout, record_class=record_class)

    monkeypatch.setattr(asyncpg.connection.Connection, "_execute", of_another_version)
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SELECT 1") == 1
        assert await connection.fetchrow("SELECT 1 WHERE false") is None
        assert await connection.fetch("CREATE TEMP TABLE u AS SELECT 1") == []
        handle.uninstrument()
        await connection.close()
        assert brief(captured) == [("SELECT", 1, "ok"), ("SELECT", 0, "ok"), ("CREATE", None, "ok")]


async def test_who_replaces_our_replacement_keeps_theirs(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    with capture_events() as captured:
        handle = instrument_asyncpg(captured.client)
        ours = asyncpg.connection.Connection.fetch

        async def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return await ours(self, *args, **kwargs)

        monkeypatch.setattr(asyncpg.connection.Connection, "fetch", theirs)
        connection = await asyncpg.connect(dsn)
        await connection.fetch("SELECT 1")
        handle.uninstrument()
        await connection.fetch("SELECT 2")
        await connection.close()
        assert (len(queries(captured)), len(calls)) == (1, 2)
        assert asyncpg.connection.Connection.fetch is theirs
    monkeypatch.undo()
    asyncpg.connection.Connection.fetch = inspect.unwrap(ours)
