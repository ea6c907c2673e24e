"""What a process under test writes down about itself, for a test that looks at it from outside.

The id of each accepted event goes to a file by one ``write`` to the system, which outlives even a kill; the figures
of a client go there as JSON. Processes that share a folder, forked or not, do not disturb each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from asgi_analytics import AnalyticsClient
from asgi_analytics.pipeline.queue import Item
from tests.kit.scripts import PATIENCE, SOURCE

PROLOGUE = """
import asyncio, atexit, gc, json, logging, os, signal, sys, threading, time, warnings
from uuid import UUID, uuid4
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
# Registered before the client's own, whose import is next: it runs after that one's last flush.
atexit.register(lambda: witness.write_figures("exit"))
from tests.faults.witness import Witness
witness = Witness(os.environ["WITNESS"])
from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, AnalyticsWorker, TimescaleSink, Event, events

class Said(Event):
    what: str
    number: int = 0

DSN = os.environ.get("DSN", "")
def make_client(**settings):
    return witness.watch(AnalyticsClient.from_url(DSN, service="shop", **settings))
"""
"""What each program has: ``make_client(**settings)`` of the database under test, whose ids are written down."""

START_OF_ID = len('{"event_id":"')


class Witness:
    """Writes down, in the process under test, what it accepts and what becomes of it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.clients: list[AnalyticsClient] = []
        append = os.O_APPEND | os.O_CREAT | os.O_WRONLY
        self._tried = os.open(self.folder / "tried", append, 0o644)
        self._accepted = os.open(self.folder / "accepted", append, 0o644)

    def watch(self, client: AnalyticsClient) -> AnalyticsClient:
        """Write down each event that the client's queue is offered, and each that it takes."""
        put = client._queue.put

        def witnessed(item: Item, weight: int, captured: bool = False) -> bool:
            line = item if isinstance(item, bytes) else item.line()
            event_id = line[START_OF_ID : START_OF_ID + 36] + b"\n"
            os.write(self._tried, event_id)
            if put(item, weight, captured):
                os.write(self._accepted, event_id)
                return True
            return False

        client._queue.put = witnessed  # type: ignore[method-assign]
        self.clients.append(client)
        return client

    def of_lifespan(self, app: Any) -> Any:
        """Return an ASGI application that writes the figures when its lifespan is over: a server kills itself then."""

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:
                if scope["type"] == "lifespan":
                    self.write_figures("lifespan")

        return watched

    def write_figures(self, when: str) -> None:
        """Write the figures of all clients of this process, as of now."""
        for number, client in enumerate(self.clients):
            path = self.folder / f"{when}-{os.getpid()}-{number}.json"
            path.with_suffix(".part").write_text(json.dumps(client.stats().as_dict()))
            path.with_suffix(".part").rename(path)


def environment(folder: Path, dsn: str, **more: str) -> dict[str, str]:
    """Return the environment of a program that has the `PROLOGUE`."""
    root = Path(__file__).parent.parent.parent
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(map(str, (root, SOURCE)))),
        "PYTHONFAULTHANDLER": "1",
        "WITNESS": str(folder),
        "DSN": dsn,
        **more,
    }


def run_witnessed(
    code: str, folder: Path, dsn: str, *, timeout: float = PATIENCE, check: bool = True, **more: str
) -> str:
    """Run a program to its end and return what it wrote; fails when it failed or hung."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        _command(code, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        env=environment(folder, dsn, **more),
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done.stdout


def start_witnessed(code: str, folder: Path, dsn: str, **more: str) -> subprocess.Popen[bytes]:
    """Start a program, to be looked at while it runs; end it as a block, which waits for it."""
    return subprocess.Popen(_command(code, folder), env=environment(folder, dsn, **more))


def _command(code: str, folder: Path) -> list[str]:
    program = folder / "program.py"  # a file, not -c: multiprocessing imports it again
    program.write_text(PROLOGUE + textwrap.dedent(code))
    return [sys.executable, "-W", "error", str(program)]


def accepted_ids(folder: Path) -> set[UUID]:
    """Return the ids of all events that were accepted by the processes of a folder; none is there twice."""
    return _ids(folder / "accepted")


def tried_ids(folder: Path) -> set[UUID]:
    """Return the ids that were offered to a queue: those accepted, and what a kill may have hit half-way."""
    return _ids(folder / "tried")


def _ids(path: Path) -> set[UUID]:
    numbers = Counter(path.read_text().split())
    assert max(numbers.values(), default=1) == 1, "an id was minted twice"
    return set(map(UUID, numbers))


def figures(folder: Path, when: str = "exit") -> list[dict[str, Any]]:
    """Return the figures that processes left behind; fails where they do not balance."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{when}-*.json"))]
    for one in found:
        fates = sum(one[name] for name in ("stored", "duplicates", "abandoned", "spooled", "queued", "in_flight"))
        assert one["accepted"] == fates + sum(one["rejected"].values()), one
    return found


def assert_accounted(folder: Path, when: str = "exit", *, processes: int = 1) -> list[dict[str, Any]]:
    """Fail unless the figures of so many processes together count each event that was accepted, and nothing else."""
    found = figures(folder, when)
    assert len(found) == processes, [path.name for path in folder.iterdir()]
    assert sum(one["accepted"] for one in found) == len(accepted_ids(folder))
    return found
