"""A queue with its ledger, without a client."""

from __future__ import annotations

import threading

from asgi_analytics.pipeline.ledger import Ledger
from asgi_analytics.pipeline.queue import EventQueue

LINE = b'{"timestamp":"2026-11-20T12:00:00Z"}'


def make(size: int = 100, max_bytes: int = 1 << 20, wake_at: int = 10) -> tuple[EventQueue, Ledger]:
    """Return a queue and its ledger."""
    queue = EventQueue(size=size, max_bytes=max_bytes, wake_at=wake_at)
    return queue, Ledger(queue)


def put(queue: EventQueue, line: bytes = LINE) -> bool:
    """Put a line into the queue."""
    return queue.put(line, len(line))


def run_all(threads: list[threading.Thread]) -> None:
    """Start threads, and wait for their end."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
