"""What the tests of the ingestion service share: events, batches, a client, and the command as a process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import asyncpg
import httpx2
import msgspec
from starlette.applications import Starlette

from asgi_analytics.sinks.base import Receipt
from asgi_analytics.sinks.memory import MemorySink
from tests.kit.databases import Database
from tests.kit.scripts import SOURCE

ROOT = Path(__file__).parents[3]
USER = "2b1f8f7c-6d1e-4a53-9f57-0b6f6a1d8e21"
TASK = "7f8c1f44-3a57-4a0e-8a58-9e43b1d5a6c0"
MISSING: Any = ...
POISON = {"event_type": "own", "data": {"n": "POISON"}}


def event(**changes: Any) -> dict[str, Any]:
    """Return a valid event, changed; `MISSING` leaves a key out."""
    made = {
        "event_id": str(uuid4()),
        "event_type": "task_created",
        "timestamp": datetime.now(UTC).isoformat(),
        "service": "shop",
        "user_id": USER,
        "session_id": None,
        "data": {"task_id": TASK, "command": "build"},
        "context": {"hostname": "web-1", "environment": "production"},
    } | changes
    return {key: value for key, value in made.items() if value is not MISSING}


def client(app: Starlette, **headers: str) -> httpx2.AsyncClient:
    """Return a client of an application in this process."""
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://service", headers=headers)


async def rows(database: Database) -> list[asyncpg.Record]:
    connection = await database.connect()
    found: list[asyncpg.Record] = await connection.fetch("SELECT * FROM analytics_events ORDER BY timestamp, id")
    return found


async def count(database: Database) -> int:
    return len(await rows(database))


def poisoned(*elements: Any) -> bytes:
    """Return a batch whose poison no check sees but the database refuses: a number that numeric cannot hold."""
    body = json.dumps([*elements]).encode()
    return body.replace(b'"data": {"n": "POISON"}', b'"data": {"n": 1}, "context": {"n": 1e200000}')


async def post(http: httpx2.AsyncClient, body: Any, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await http.post("/events/batch", content=content, headers={"Content-Type": "application/json"} | headers)


class TellingSink(MemorySink):
    """Keeps events in memory, and tells duplicates by their place, as the database sink of the service does."""

    tells_duplicates = True

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[list[bytes]] = []

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        self.writes.append(list(batch))
        duplicate_at = []
        for place, line in enumerate(batch):
            if (await super().write([line])).duplicates:
                duplicate_at.append(place)
        return Receipt(len(duplicate_at), (), duplicate_at)


class Process:
    """The command ``analytics-ingest`` as a process on a free port."""

    module = "asgi_analytics.cli.ingest"

    def __init__(self, dsn: str, *arguments: str, **environ: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "log"
        environment = {
            **os.environ, "PYTHONPATH": str(SOURCE), "DATABASE_URL": dsn, "PYTHONWARNINGS": "error", **environ
        }  # fmt: skip
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "--port", "0", *arguments],
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 30
        while (found := re.search(r"listening on http://\S+:(\d+)", self.log)) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                told = self.log
                self.__exit__()
                raise AssertionError(told)
            time.sleep(0.02)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def client(self, **headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._folder.cleanup()


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)
