"""The contract on each server; a server that is not installed for the interpreter is skipped."""

from __future__ import annotations

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
    command = ("hypercorn", "--worker-class", "asyncio")
    closed_by_client = ("disconnected", 1006)  # it says 1006 of every client that closes


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
