"""On trio: the middleware needs no asyncio; the worker has a loop and a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import trio

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, AnalyticsWorker, MemorySink
from asgi_analytics.events.cocoons import CocoonConnected
from asgi_analytics.testing import CapturedEvents
from tests.frameworks.contract import COCOON
from tests.instrumentation.asgi_app import Receive, Scope, Send, body, http_scope, start


async def starlette_like(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, and be cancelled while the last message is with the server."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            await receive()
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        await send(start())
        await send(body())


def test_a_response_whose_last_message_is_handed_over_while_it_is_cancelled_is_ok(analytics: CapturedEvents) -> None:
    async def serve() -> None:
        handed_over = trio.Event()

        async def receive() -> Any:
            await handed_over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                handed_over.set()
                await trio.sleep(10)

        await AnalyticsMiddleware(starlette_like, client=analytics.client)(http_scope(), receive, send)

    trio.run(serve)

    [request] = analytics.of("api_request")
    assert (request.data["status_code"], request.data["outcome"]) == (200, "ok")


@pytest.mark.parametrize("owns_worker", [False, True])
def test_what_waits_is_written_at_the_end_of_the_lifespan(owns_worker: bool) -> None:
    sink = MemorySink()

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        client.track(CocoonConnected(cocoon_id=COCOON))

    async def serve() -> None:
        async def receive() -> Any:
            return {"type": "lifespan.shutdown"}

        async def send(message: Any) -> None:
            raise AssertionError

        await AnalyticsMiddleware(lifespan, client=client)({"type": "lifespan"}, receive, send)

    if not owns_worker:
        client = AnalyticsClient.from_url("memory://", service="shop", flush_interval=3600)
        trio.run(serve)
        assert client.stats().stored == 1
        client.close()
        return

    client = AnalyticsClient(service="shop", flush_interval=3600)
    attached, ended = threading.Event(), threading.Event()

    async def work() -> None:
        async with AnalyticsWorker(client, sink):
            attached.set()
            await asyncio.to_thread(ended.wait, 30)

    worker = threading.Thread(target=asyncio.run, args=(work(),))
    worker.start()
    assert attached.wait(30)
    try:
        trio.run(serve)
        assert client.stats().stored == 1
    finally:
        ended.set()
        worker.join()


def test_a_client_without_a_worker_is_not_waited_for() -> None:
    client = AnalyticsClient(service="shop", close_timeout=30)
    assert client.track(CocoonConnected(cocoon_id=COCOON))

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def unused(*args: Any) -> Any:
        raise AssertionError

    async def serve() -> None:
        await AnalyticsMiddleware(nothing, client=client)({"type": "lifespan"}, unused, unused)

    began = time.monotonic()
    trio.run(serve)
    assert time.monotonic() - began < 20, "it waited for a worker that nobody has started"
    client.close(0)
