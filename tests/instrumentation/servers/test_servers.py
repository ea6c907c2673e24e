"""The contract on each server; a server that is not installed for the interpreter is skipped."""

from __future__ import annotations

import contextlib
from typing import ClassVar

import httpx2

from tests.instrumentation.servers.contract import ServerContract
from tests.kit.serving import UVICORN


class TestUvicornWithH11(ServerContract):
    package = "uvicorn"
    command = (*UVICORN, "--http", "h11", "--ws", "websockets")
    vanished = [("ok", 1005), ("disconnected", 1006)]


class TestUvicornWithHttptools(ServerContract):
    package = "httptools"
    command = (*UVICORN, "--http", "httptools", "--ws", "websockets")
    vanished = [("ok", 1005), ("disconnected", 1006)]


class TestHypercornOnAsyncio(ServerContract):
    package = "hypercorn"
    command: ClassVar[tuple[str, ...]] = ("hypercorn", "--worker-class", "asyncio")
    closed_by_client = ("disconnected", 1006)  # it says 1006 of every client that closes


class TestHypercornOverHttp2(TestHypercornOnAsyncio):
    # A stream whose application raised is left open until the idle connection is closed, after 5 seconds by default.
    command = (*TestHypercornOnAsyncio.command, "--keep-alive", "1")

    def ask(self, path: str) -> tuple[int | None, bytes, bool]:
        status, received, is_complete = None, b"", False
        with (
            contextlib.suppress(httpx2.RemoteProtocolError),
            httpx2.Client(http1=False, http2=True, trust_env=False, timeout=30) as client,
            client.stream("GET", f"http://127.0.0.1:{self.server.port}{path}") as response,
        ):
            assert response.http_version == "HTTP/2"
            status = response.status_code
            for part in response.iter_raw():
                received += part
            is_complete = True
        return status, received, is_complete

    def leave(self, path: str, *, receive: bool) -> None:
        with (
            contextlib.suppress(httpx2.ReadTimeout),
            httpx2.Client(http1=False, http2=True, trust_env=False, timeout=10 if receive else 0.2) as client,
            client.stream("GET", f"http://127.0.0.1:{self.server.port}{path}") as response,
        ):
            assert next(response.iter_raw())


class TestHypercornOnTrio(ServerContract):
    package = "hypercorn"
    command = ("hypercorn", "--worker-class", "trio")
    closed_by_client = ("disconnected", 1006)


class TestGranian(ServerContract):
    package = "granian"
    command = ("granian", "--interface", "asgi")
    vanished = [("ok", 1005)]


class TestDaphne(ServerContract):
    package = "daphne"
    command = ("daphne",)
    keeps_waiting = True
    knows_who_left = False
