"""The application's own functions that raise, hang, return nonsense or track: nobody else pays for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, Event, events
from tests.faults.balance import assert_stored, ids_in
from tests.faults.witness import Witness, accepted_ids
from tests.kit.databases import Database
from tests.kit.fakes import until

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


class HookSaid(Event):
    what: str


@pytest.fixture
async def make(database: Database, tmp_path: Path) -> AsyncIterator[Callable[..., AnalyticsClient]]:
    """Give ``make(**settings)``: a client of this test's database whose accepted ids are written down."""
    witness = Witness(str(tmp_path))

    def client(**settings: Any) -> AnalyticsClient:
        return witness.watch(AnalyticsClient.from_url(database.dsn, service="shop", **settings))

    yield client
    for one in witness.clients:
        one.close(5)


def raise_runtime_error(*_: Any) -> Any:
    raise RuntimeError("the hook's own")


def recurse(*_: Any) -> Any:
    return recurse(*_)


def raise_an_error_that_cannot_be_shown(*_: Any) -> Any:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    raise Unspeakable


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_: value


NONSENSE = [object(), b"bytes", "text", 1.5, [], {"a": 1}, TASK.__class__, print, ..., float("nan"), True]
# -- before_track


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("hook", [raise_runtime_error, recurse, raise_an_error_that_cannot_be_shown])
async def test_a_before_track_that_raises_drops_the_event_it_saw_and_no_other(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path, hook: Callable[..., Any]
) -> None:
    client = make(before_track=lambda event: hook() if isinstance(event, HookSaid) else event)
    for number in range(100):
        assert client.track(HookSaid(what=str(number))) is False
        assert client.track(TASK) is True
    assert await client.aflush(30)
    assert client.stats().dropped["before_track"] == client.stats().stored == 100
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_before_track_that_returns_nonsense_drops_the_event_it_saw_and_no_other(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path
) -> None:
    answers: list[Any] = []
    client = make(before_track=lambda event: answers.pop() if answers else event)
    for nonsense in NONSENSE:
        answers.append(nonsense)
        assert client.track(TASK) is False
        assert client.track(TASK) is True
    assert await client.aflush(30)
    assert client.stats().dropped["invalid"] == client.stats().stored == len(NONSENSE)
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_before_track_that_is_async_drops_what_it_sees(
    make: Callable[..., AnalyticsClient], database: Database
) -> None:
    async def before_track(event: Event) -> Event:
        return event

    client = make(before_track=before_track)
    assert client.track(TASK) is False
    assert client.stats().dropped["invalid"] == 1
    assert await ids_in(database) == []


async def test_a_before_track_that_hangs_holds_its_own_caller_and_nobody_else(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path
) -> None:
    release, hanging = threading.Event(), threading.Event()

    def before_track(event: Event) -> Event:
        if isinstance(event, HookSaid):
            hanging.set()
            release.wait(60)
        return event

    client = make(before_track=before_track, flush_interval=0.05)
    thread = threading.Thread(target=client.track, args=(HookSaid(what="late"),))
    thread.start()
    hanging.wait(10)
    for _ in range(200):
        assert client.track(TASK)
    assert await client.aflush(30)
    assert client.stats().stored == 200
    release.set()
    await asyncio.to_thread(thread.join)
    assert await client.aflush(30)
    assert client.stats().stored == 201
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("number", [1, 2, 10])
async def test_a_before_track_that_tracks_comes_to_an_end(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path, number: int
) -> None:
    def before_track(event: Event) -> Event:
        for index in range(number):
            client.track(HookSaid(what=str(index)))
        return event

    client = make(before_track=before_track, flush_interval=0.05)
    for _ in range(20):
        assert client.track(TASK)
    assert await client.aflush(30)
    stats = client.stats()
    # Each event, those of the hook for it, and none for these.
    assert (stats.stored, stats.dropped["before_track"]) == (20 * (1 + number), 20 * number**2)
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_before_tracks_of_two_clients_that_track_in_each_other_come_to_an_end(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path
) -> None:
    def to(other: Callable[[], AnalyticsClient]) -> Callable[[Event], Event]:
        def before_track(event: Event) -> Event:
            other().track(HookSaid(what="one"))
            other().track(HookSaid(what="two"))
            return event

        return before_track

    one = make(before_track=to(lambda: other))
    other = make(before_track=to(lambda: one))
    assert one.track(TASK)
    assert await one.aflush(30)
    assert await other.aflush(30)
    assert one.stats().stored + other.stats().stored == 3
    assert set(await ids_in(database)) == accepted_ids(tmp_path)


# -- user_id, session_id, endpoint


async def ask(app: Any, path: str = "/buy") -> list[dict[str, Any]]:
    """Send one request and return the messages of its response."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, receive, send)
    return sent


async def shop(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


EXPECTED = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
    {"type": "http.response.body", "body": b"ok"},
]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("name", ["user_id", "session_id", "endpoint"])
async def test_a_callable_that_raises_or_returns_nonsense_costs_no_request_and_no_event(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path, name: str
) -> None:
    client = make()
    hooks: list[Callable[..., Any]] = [raise_runtime_error, recurse, raise_an_error_that_cannot_be_shown, dict.clear]
    hooks += map(returning, [*NONSENSE, "\x00\ud800" * 10, "x" * 300_000])
    for hook in hooks:
        options: dict[str, Any] = {name: hook}
        assert await ask(AnalyticsMiddleware(shop, client=client, **options)) == EXPECTED, hook
    assert await client.aflush(30)
    stats = client.stats()
    # One event a request; what such a callable has made too large for one is counted.
    assert stats.stored + stats.dropped["oversize"] == len(hooks)
    assert stats.dropped["oversize"] <= 1
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("name", ["user_id", "session_id", "endpoint"])
async def test_a_callable_that_tracks_costs_no_request_and_comes_to_an_end(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path, name: str
) -> None:
    client = make(flush_interval=0.05)
    calls = [0]

    def hook(scope: Any) -> str:
        calls[0] += 1
        assert client.track(HookSaid(what=name))
        return str(uuid4())

    options: dict[str, Any] = {name: hook}
    app = AnalyticsMiddleware(shop, client=client, **options)
    for _ in range(50):
        assert await ask(app) == EXPECTED
    assert await client.aflush(30)
    assert client.stats().stored == 50 + calls[0]
    assert 50 <= calls[0] <= 4 * 50
    await assert_stored(client, database, accepted_ids(tmp_path))


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_callable_that_hangs_in_one_thread_leaves_the_others_alone(
    make: Callable[..., AnalyticsClient], database: Database, tmp_path: Path
) -> None:
    client, release = make(flush_interval=0.05), threading.Event()
    hanging: list[int] = []

    def user_id(scope: Any) -> str:
        if scope["path"] == "/slow":
            hanging.append(1)
            release.wait(60)
        return "somebody"

    app = AnalyticsMiddleware(shop, client=client, user_id=user_id)
    thread = threading.Thread(target=lambda: asyncio.run(ask(app, "/slow")))
    thread.start()
    await asyncio.to_thread(until, lambda: hanging)
    for _ in range(100):
        assert await ask(app) == EXPECTED
    assert await client.aflush(30)
    assert client.stats().stored == 100
    release.set()
    await asyncio.to_thread(thread.join)
    assert await client.aflush(30)
    assert client.stats().stored == 101
    await assert_stored(client, database, accepted_ids(tmp_path))
