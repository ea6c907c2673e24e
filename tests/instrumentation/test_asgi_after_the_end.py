"""Tasks that outlive their request, and jobs outside of any: what they do is no part of a request that has ended."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid5

import pytest

from asgi_analytics import AnalyticsMiddleware, capture_query, set_session, set_user
from asgi_analytics.context import RequestContext, current
from asgi_analytics.events import USER_NAMESPACE
from asgi_analytics.events.cocoons import CocoonConnected
from asgi_analytics.testing import CapturedEvents
from tests.frameworks.contract import COCOON
from tests.instrumentation.asgi_app import App, Receive, Scope, Send, body, get, start


class Late(Exception):
    """Can be referred to weakly, which a builtin exception cannot."""


ALICE = uuid5(USER_NAMESPACE, "alice")


class Outliving:
    """An application whose requests start a task that goes on when they have ended."""

    def __init__(self, work: Callable[[], Awaitable[object]]) -> None:
        self.work = work
        self.may_work = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.contexts: list[RequestContext | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.contexts.append(current.get())
        self.tasks.append(asyncio.create_task(self._go_on()))
        await send(start())
        await send(body())

    async def _go_on(self) -> None:
        await self.may_work.wait()
        await self.work()

    async def end(self) -> None:
        self.may_work.set()
        await asyncio.gather(*self.tasks)


async def after(
    analytics: CapturedEvents, work: Callable[[], Awaitable[object]], path: str = "/", **options: Any
) -> RequestContext:
    """Run a request to its end, and then what it has left running; return the finished request."""
    app = Outliving(work)
    wrapped: App = AnalyticsMiddleware(app, client=analytics.client, exclude=["/health"], **options)
    await get(wrapped, path)
    await app.end()
    [context] = app.contexts
    assert context is not None
    return context


async def test_a_poller_that_an_excluded_request_has_started_makes_events(analytics: CapturedEvents) -> None:
    @capture_query(analytics.client, "SELECT", "tasks")
    async def poll() -> None:
        analytics.client.track_error(ValueError("while polling"))

    await after(analytics, poll, "/health")

    assert [event.event_type for event in analytics.events] == ["application_error", "database_query"]


async def test_queries_after_the_end_are_not_counted_in_the_request(analytics: CapturedEvents) -> None:
    @capture_query(analytics.client, "SELECT", "tasks")
    async def query() -> None:
        pass

    finished = await after(analytics, query)

    [request], [_] = analytics.of("api_request"), analytics.of("database_query")
    assert request.data["db_queries"] is None
    assert finished.queries is None


async def test_an_error_after_the_end_has_no_endpoint_and_is_not_kept_by_the_request(analytics: CapturedEvents) -> None:
    errors: list[weakref.ref[BaseException]] = []

    async def fail() -> None:
        error = Late("late")
        errors.append(weakref.ref(error))
        assert analytics.client.track_error(error)
        assert not analytics.client.track_error(error)

    finished = await after(analytics, fail, endpoint=lambda scope: "/named")
    gc.collect()

    [error] = analytics.of("application_error")
    assert error.data["endpoint"] is None
    assert error.context is None or error.context["request_id"] is None
    assert errors[0]() is None
    assert finished.queries is None


@pytest.mark.parametrize("path", ["/", "/health"])
async def test_user_and_session_stay_known(analytics: CapturedEvents, path: str) -> None:
    async def track() -> None:
        analytics.client.track(CocoonConnected(cocoon_id=COCOON))

    await after(analytics, track, path, user_id=lambda scope: "alice", session_id=lambda scope: "s-1")

    [event] = analytics.of("cocoon_connected")
    assert (event.user_id, event.session_id) == (ALICE, "s-1")


async def test_a_message_sent_after_the_end_is_not_kept_by_the_request(analytics: CapturedEvents) -> None:
    sends: list[Send] = []

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        sends.append(send)
        contexts.append(current.get())

    contexts: list[Any] = []
    await get(AnalyticsMiddleware(silent, client=analytics.client))
    try:
        raise ValueError("being answered")
    except ValueError:
        await sends[0](start())

    assert len(analytics.of("api_request")) == 1
    assert contexts[0].answering is None
    assert contexts[0].status is None


@pytest.mark.usefixtures("outside_a_request")
async def test_a_job_with_a_user_does_not_gather_what_it_does(analytics: CapturedEvents) -> None:
    errors: list[weakref.ref[BaseException]] = []

    @capture_query(analytics.client, "SELECT", "tasks")
    async def query() -> None:
        pass

    set_user("alice")
    set_session("job")
    for _ in range(20):
        await query()
        error = Late("in a job")
        errors.append(weakref.ref(error))
        analytics.client.track_error(error)
        del error
    gc.collect()

    job = current.get()
    assert job is not None
    assert job.queries is None
    assert [error for error in errors if error() is not None] == []
    events = [*analytics.of("database_query"), *analytics.of("application_error")]
    assert len(events) == 40
    assert {(event.user_id, event.session_id) for event in events} == {(ALICE, "job")}
