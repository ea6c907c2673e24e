"""Against a real uvicorn: what a test client hides. Clients leave, connections stay, servers end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import Receive, Scope, Send
from tests.kit.scripts import PROLOGUE, environment, events_of
from tests.kit.serving import UVICORN, Serving

IMPLEMENTATIONS = [name for name in ("h11", "httptools") if importlib.util.find_spec(name)]


class Uvicorn:
    """A server in a thread of its own."""

    def __init__(self, app: Any, http: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        config = uvicorn.Config(app, http=http, log_config=None, lifespan="auto", timeout_graceful_shutdown=2)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> Uvicorn:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.002)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture(params=IMPLEMENTATIONS)
def serve(request: pytest.FixtureRequest, analytics: CapturedEvents) -> Iterator[Callable[[Any], Uvicorn]]:
    """Give ``serve(app)``: the application behind the middleware behind a real server."""
    with contextlib.ExitStack() as stack:

        def start(app: Any) -> Uvicorn:
            return stack.enter_context(Uvicorn(AnalyticsMiddleware(app, client=analytics.client), request.param))

        yield start


async def requests(analytics: CapturedEvents, number: int = 1) -> list[dict[str, Any]]:
    """Return the data of the requests, as soon as there are so many."""
    async with asyncio.timeout(10):
        while len(analytics.of("api_request")) < number:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    found = [event.data for event in analytics.of("api_request")]
    assert len(found) == number
    return found


def asking(path: str, more: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


async def page(request: Request) -> Response:
    return PlainTextResponse("page")


async def read_response(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head.split(b" ")[1] + b" " + await reader.readexactly(length)


async def test_a_connection_that_is_kept(serve: Any, analytics: CapturedEvents) -> None:
    server = serve(Starlette(routes=[Route("/items/{item}", page)]))
    reader, writer = await server.connect()
    for path in ("/items/1", "/nowhere", "/items/2"):
        writer.write(asking(path))
        await read_response(reader)
    writer.close()

    found = await requests(analytics, 3)
    assert [(r["endpoint"], r["status_code"], r["outcome"]) for r in found] == [
        ("/items/{item}", 200, "ok"),
        (None, 404, "ok"),
        ("/items/{item}", 200, "ok"),
    ]


async def test_requests_in_a_pipeline(serve: Any, analytics: CapturedEvents) -> None:
    server = serve(Starlette(routes=[Route("/items/{item}", page)]))
    reader, writer = await server.connect()
    writer.write(asking("/items/1") + asking("/items/2") + asking("/nowhere"))
    assert [await read_response(reader) for _ in range(3)] == [b"200 page", b"200 page", b"404 Not Found"]
    writer.close()

    assert [r["status_code"] for r in await requests(analytics, 3)] == [200, 200, 404]


async def test_a_stream_that_the_client_leaves(serve: Any, analytics: CapturedEvents) -> None:
    async def endless(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)

        return StreamingResponse(parts())

    server = serve(Starlette(routes=[Route("/stream", endless)]))
    reader, writer = await server.connect()
    writer.write(asking("/stream"))
    await reader.readexactly(2000)
    writer.close()

    [request] = await requests(analytics)
    assert (request["status_code"], request["outcome"], request["endpoint"]) == (200, "disconnected", "/stream")
    assert request["response_bytes"] >= 1000
    assert analytics.of("application_error") == []


async def test_an_upload_that_the_client_leaves(serve: Any, analytics: CapturedEvents) -> None:
    async def upload(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    server = serve(Starlette(routes=[Route("/upload", upload, methods=["POST"])]))
    _, writer = await server.connect()
    writer.write(asking("/upload", "Content-Length: 1000\r\n", "POST") + b"x" * 10)
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()

    [request] = await requests(analytics)
    assert (request["status_code"], request["outcome"], request["error_type"]) == (499, "disconnected", None)
    assert analytics.of("application_error") == []


async def test_a_handler_that_does_not_notice_has_answered(serve: Any, analytics: CapturedEvents) -> None:
    async def slow(request: Request) -> Response:
        await asyncio.sleep(0.1)
        return PlainTextResponse("late")

    server = serve(Starlette(routes=[Route("/slow", slow)]))
    _, writer = await server.connect()
    writer.write(asking("/slow"))
    await writer.drain()
    await asyncio.sleep(0.03)
    writer.close()

    [request] = await requests(analytics)
    assert (request["status_code"], request["outcome"]) == (200, "ok")


async def test_returned_without_an_answer_while_the_client_waits(serve: Any, analytics: CapturedEvents) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError

    server = serve(silent)
    reader, writer = await server.connect()
    writer.write(asking("/"))
    assert (await reader.readline()).startswith(b"HTTP/1.1 500")
    writer.close()

    [request] = await requests(analytics)
    assert (request["status_code"], request["outcome"]) == (500, "error")


async def test_returned_without_an_answer_after_the_client_left(serve: Any, analytics: CapturedEvents) -> None:
    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise ValueError
        while (await receive())["type"] != "http.disconnect":
            pass

    server = serve(waiting)
    _, writer = await server.connect()
    writer.write(asking("/"))
    await writer.drain()
    await asyncio.sleep(0.03)
    writer.close()

    [request] = await requests(analytics)
    assert (request["status_code"], request["outcome"]) == (499, "disconnected")


async def test_a_background_task_that_raises(serve: Any, analytics: CapturedEvents) -> None:
    answered = threading.Event()

    async def fail() -> None:
        await asyncio.to_thread(answered.wait, 5)
        await asyncio.sleep(0.05)
        raise ValueError("in the background")

    async def answers(request: Request) -> Response:
        return PlainTextResponse("page", background=BackgroundTask(fail))

    server = serve(Starlette(routes=[Route("/", answers)]))
    reader, writer = await server.connect()
    started = time.perf_counter()
    writer.write(asking("/"))
    assert await read_response(reader) == b"200 page"
    took = (time.perf_counter() - started) * 1000
    answered.set()

    [request] = await requests(analytics)
    writer.close()
    [error] = analytics.of("application_error")
    assert (request["status_code"], request["outcome"], request["error_type"]) == (200, "ok", None)
    assert request["duration_ms"] < took + 50
    assert (error.data["handled"], error.data["endpoint"]) == (False, "/")


async def test_a_handler_that_raises(serve: Any, analytics: CapturedEvents) -> None:
    async def fail(request: Request) -> Response:
        raise ValueError("no")

    server = serve(Starlette(routes=[Route("/", fail)]))
    reader, writer = await server.connect()
    writer.write(asking("/"))
    assert await read_response(reader) == b"500 Internal Server Error"
    writer.close()

    [request] = await requests(analytics)
    assert (request["status_code"], request["outcome"], request["error_type"]) == (500, "error", "ValueError")
    assert len(analytics.of("application_error")) == 1


@pytest.mark.newest  # uvicorn 0.30 and this version of websockets do not understand each other
@pytest.mark.parametrize("code", [1000, 1001, 1008, None])
async def test_websockets_that_end(serve: Any, analytics: CapturedEvents, code: int | None) -> None:
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    server = serve(Starlette(routes=[WebSocketRoute("/chat/{room}", chat)]))
    connection = await websockets.connect(f"ws://127.0.0.1:{server.port}/chat/1")
    await connection.send("hello")
    assert await connection.recv() == "hello"
    if code is None:
        connection.transport.abort()
    else:
        await connection.close(code)

    [request] = await requests(analytics)
    assert (request["method"], request["endpoint"], request["status_code"]) == ("WEBSOCKET", "/chat/{room}", 101)
    expected = {1000: [("ok", 1000)], 1001: [("ok", 1001)], 1008: [("disconnected", 1008)]}
    # A lost connection is 1006; some releases of uvicorn call it 1005, which is a close without a code.
    assert (request["outcome"], request["close_code"]) in expected.get(
        code or 0, [("disconnected", 1006), ("ok", 1005)]
    )
    assert request["response_bytes"] == 5


@pytest.mark.newest  # uvicorn 0.30 and this version of websockets do not understand each other
async def test_a_websocket_that_is_refused(serve: Any, analytics: CapturedEvents) -> None:
    async def refuse(websocket: WebSocket) -> None:
        await websocket.close(1008)

    server = serve(Starlette(routes=[WebSocketRoute("/chat", refuse)]))
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"ws://127.0.0.1:{server.port}/chat")

    [request] = await requests(analytics)
    assert request["status_code"] == refused.value.response.status_code == 403
    assert (request["outcome"], request["close_code"]) == ("ok", None)


PROGRAM = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from asgi_analytics import AnalyticsMiddleware

FileSink.slow = 0.3
client = AnalyticsClient.from_url(f"file://{os.environ['EVENTS']}", service="t", flush_interval=3600)
async def page(request):
    return PlainTextResponse("page")
app = Starlette(routes=[Route("/", page)])
if os.environ["INSTALL"] == "usual":
    app.add_middleware(AnalyticsMiddleware, client=client)
else:
    app = AnalyticsMiddleware(app, client=client)
"""


@pytest.mark.parametrize("install", ["usual", "outermost"])
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_what_waits_is_written_when_the_server_ends(tmp_path: Path, by: signal.Signals, install: str) -> None:
    written = tmp_path / "written"
    environ = environment(EVENTS=written, INSTALL=install)
    with Serving(tmp_path, PROLOGUE + PROGRAM, *UVICORN, environ=environ) as server:
        server.until_served()
        assert all(server.get() for _ in range(6))
        server.terminate(by)
    assert len(events_of(written)) == 7
