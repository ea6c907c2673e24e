"""Programs of a few lines, run in an interpreter of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import asgi_analytics

PATIENCE = 180
"""Seconds that a program may take on a machine that has much else to do; after them it hangs."""

SOURCE = Path(asgi_analytics.__file__).parent.parent

PROLOGUE = """
import asyncio, os, signal, sys, threading, time
from uuid import UUID, uuid4
from asgi_analytics import AnalyticsClient, AnalyticsWorker, Event, events
from asgi_analytics.sinks.base import Receipt

class FileSink:
    schemes = ("file",)
    slow = 0.0
    def __init__(self, path):
        self.path = path
    @classmethod
    def from_url(cls, url, *, token=None):
        return cls(url.removeprefix("file://"))
    async def write(self, batch):
        await asyncio.sleep(self.slow)
        with open(self.path, "ab", buffering=0) as file:
            file.write(b"".join(line + b"\\n" for line in batch))
        return Receipt()
    async def aclose(self):
        pass

import asgi_analytics.sinks
asgi_analytics.sinks.FileSink = FileSink
import asgi_analytics.sinks.memory
asgi_analytics.sinks.memory.FileSink = FileSink  # where a URL's scheme is looked for

ID = uuid4()
class Said(Event):
    what: str
    pid: int
def said(what):
    return Said(what=what, pid=os.getpid())
"""
"""What each script has: a client of ``file://<path>`` appends its events to a file, one a line."""


def environment(**more: object) -> dict[str, str]:
    """Return the environment of a program that has the `PROLOGUE`."""
    return {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONFAULTHANDLER": "1"} | {k: str(v) for k, v in more.items()}


def run_script(code: str, *arguments: object, timeout: float = PATIENCE, check: bool = True, **options: Any) -> str:
    """Run a script to its end and return what it wrote to stdout and stderr; fails when it failed or hung."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROLOGUE + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        env=environment(),
        **options,
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done.stdout


def events_of(path: Path) -> list[dict[str, Any]]:
    """Return the events of a file, which may be written to at this moment; none is there twice."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    events: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
    assert max(Counter(event["event_id"] for event in events).values(), default=1) == 1
    return events


def arrived(path: Path) -> list[str]:
    """Return what was said, sorted; no event is there twice."""
    return sorted(event["data"]["what"] for event in events_of(path))
