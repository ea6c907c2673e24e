"""What is recorded behind every ASGI server, the same for each: a server's tests subclass `ServerContract`."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import time
from collections.abc import AsyncIterator, Container, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.kit.fakes import until
from tests.kit.scripts import PROLOGUE, environment, events_of
from tests.kit.serving import Serving

PROGRAM = """
import anyio
from starlette.responses import StreamingResponse
from asgi_analytics import AnalyticsMiddleware

FileSink.slow = 0.1
client = AnalyticsClient.from_url(f"file://{os.environ['EVENTS']}", service="shop", batch_size=1)

def start(status=200):
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}

def body(data=b"", more_body=False):
    return {"type": "http.response.body", "body": data, "more_body": more_body}

async def shop(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await chat(scope["path"], receive, send)
    else:
        await respond(scope, scope["path"], receive, send)

async def respond(scope, path, receive, send):
    if path == "/silent":
        return
    if path == "/waits":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if path == "/raises":
        raise ValueError("before the response")
    if path == "/streamed":
        await StreamingResponse(parts())(scope, receive, send)
        return
    await send(start())
    if path == "/half":
        await send(body(b"half", True))
        raise ValueError("in the middle of the response")
    if path == "/endless":
        async with anyio.create_task_group() as group:
            group.start_soon(until_left, receive, group.cancel_scope)
            while True:
                await send(body(b"x" * 1000, True))
                await anyio.sleep(0.01)
        return
    await send(body(b"page"))

async def until_left(receive, scope):
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()

async def parts():
    yield b"first"
    yield b"last"

async def chat(path, receive, send):
    await receive()
    if path == "/refused":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message.get("text") == "end":
            await send({"type": "websocket.close", "code": 4001})
            return
        await send({"type": "websocket.send", "text": "hello"})

app = AnalyticsMiddleware(shop, client=client, endpoint=lambda scope: scope["path"])
"""


class ServerContract:
    """Subclass it, and say how the server is started and in what it differs."""

    package: ClassVar[str]
    command: ClassVar[tuple[str, ...]]
    keeps_waiting = False
    """Whether the client waits in vain for the end of a response that the application has left open."""
    knows_who_left = True
    """Whether the server tells that the client has left, so that an application may return without an answer."""
    closed_by_client: ClassVar[tuple[str, int]] = ("ok", 1000)
    """Outcome and close code of a WebSocket that its client closes with 1000."""
    vanished: ClassVar[Container[tuple[str, int]]] = [("disconnected", 1006)]
    """The same if the client is gone without a close frame; releases of a server differ."""

    server: Serving
    written: Path

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _served(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        if importlib.util.find_spec(cls.package) is None:
            pytest.skip(f"{cls.package} is not installed for this interpreter")
        folder = tmp_path_factory.mktemp("server")
        cls.written = folder / "written"
        with Serving(folder, PROLOGUE + PROGRAM, *cls.command, environ=environment(EVENTS=cls.written)) as server:
            cls.server = server
            server.until_served("/started")
            yield

    # -- how a test speaks with it

    def ask(self, path: str) -> tuple[int | None, bytes, bool]:
        """Return the status, the body, and whether the response was complete as the client saw it."""
        timeout = 2 if self.keeps_waiting else 10
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            received = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                while not received.endswith(b"0\r\n\r\n") and (part := connection.recv(65536)):
                    received += part
        head, _, rest = received.partition(b"\r\n\r\n")
        is_chunked = b"transfer-encoding: chunked" in head.lower()
        return int(head.split()[1]) if head else None, rest, not is_chunked or rest.endswith(b"0\r\n\r\n")

    def leave(self, path: str, *, receive: bool) -> None:
        """Ask, and close the connection before the end of the response; after its beginning if ``receive``."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if receive:
                assert connection.recv(1000)
            else:
                time.sleep(0.2)

    def request(self, path: str) -> dict[str, Any]:
        """Return the only request of a path, as soon as it is written."""
        [found] = self.events("api_request", path)
        return found

    def events(self, event_type: str, path: str, number: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def are_there() -> bool:
            events = events_of(self.written) if self.written.exists() else []
            found[:] = [e["data"] for e in events if e["event_type"] == event_type and e["data"]["endpoint"] == path]
            return len(found) >= number

        until(are_there, 15)
        return found

    @contextlib.asynccontextmanager
    async def connected(self, path: str) -> AsyncIterator[ClientConnection]:
        connection = await websockets.connect(f"ws://127.0.0.1:{self.server.port}{path}")
        try:
            yield connection
        finally:
            with contextlib.suppress(websockets.ConnectionClosed):  # older releases raise it for a test that aborts
                await connection.close()

    # -- the promises

    def test_a_plain_answer(self) -> None:
        assert self.ask("/plain")[0] == 200

        request = self.request("/plain")
        assert (request["status_code"], request["outcome"], request["response_bytes"]) == (200, "ok", 4)

    def test_a_stream_that_is_complete(self) -> None:
        status, body, is_complete = self.ask("/streamed")
        assert (status, b"last" in body, is_complete) == (200, True, True)

        request = self.request("/streamed")
        assert (request["status_code"], request["outcome"], request["response_bytes"]) == (200, "ok", 9)

    def test_returned_without_an_answer(self) -> None:
        assert self.ask("/silent")[0] == (None if self.keeps_waiting else 500)

        request = self.request("/silent")
        assert (request["status_code"], request["outcome"]) == (500, "error")

    def test_raised_before_the_response(self) -> None:
        assert self.ask("/raises")[0] == 500

        request = self.request("/raises")
        assert (request["status_code"], request["outcome"], request["error_type"]) == (500, "error", "ValueError")
        assert len(self.events("application_error", "/raises")) == 1

    def test_raised_in_the_middle_of_the_response(self) -> None:
        status, body, _ = self.ask("/half")
        assert status == 200
        assert b"half" in body

        request = self.request("/half")
        assert (request["status_code"], request["outcome"], request["error_type"]) == (200, "error", "ValueError")

    def test_the_client_leaves_in_the_middle(self) -> None:
        self.leave("/endless", receive=True)

        request = self.request("/endless")
        assert (request["status_code"], request["outcome"]) == (200, "disconnected")

    def test_returned_without_an_answer_after_the_client_left(self) -> None:
        self.leave("/waits", receive=False)

        request = self.request("/waits")
        expected = (499, "disconnected") if self.knows_who_left else (500, "error")
        assert (request["status_code"], request["outcome"]) == expected

    async def test_a_websocket_that_its_client_closes(self) -> None:
        async with self.connected("/client-closes") as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
            await connection.close(1000)

        request = self.request("/client-closes")
        assert request["status_code"] == 101
        assert (request["outcome"], request["close_code"]) == self.closed_by_client

    async def test_a_websocket_that_the_application_closes(self) -> None:
        async with self.connected("/server-closes") as connection:
            await connection.send("end")
            await connection.wait_closed()
            assert connection.close_code == 4001

        request = self.request("/server-closes")
        assert (request["status_code"], request["outcome"], request["close_code"]) == (101, "ok", 4001)

    async def test_a_websocket_whose_client_vanishes(self) -> None:
        async with self.connected("/vanishes") as connection:
            await connection.send("hello")
            assert await connection.recv() == "hello"
            connection.transport.abort()

        request = self.request("/vanishes")
        assert (request["outcome"], request["close_code"]) in self.vanished

    async def test_a_websocket_that_is_refused(self) -> None:
        if self.package == "granian" and int(version("websockets").partition(".")[0]) < 14:
            pytest.skip("websockets before 14 does not see Granian's refusal before it runs out of time")
        with pytest.raises(websockets.InvalidHandshake, match="HTTP 403"):
            async with self.connected("/refused"):
                pass

        assert self.request("/refused")["status_code"] == 403

    def test_what_waits_is_written_when_the_server_ends(self) -> None:
        """The last test of the class: it ends the server."""
        assert all(self.ask("/last")[0] == 200 for _ in range(5))
        self.server.terminate()

        assert len(self.events("api_request", "/last", 5)) == 5
