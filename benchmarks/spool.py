"""What the spool costs the worker, and how fast it gives back what it holds.

Writes events to a folder and takes them back as the worker does, in groups, without a sink: the cost is CPU of the one
thread that does it. ``overflow`` reads them from the disk again, ``always`` sends them from memory. Then an outage of a
hundred thousand events is replayed to a sink that does nothing, by a client, beside the same events straight from the
queue; and ``track()`` is called with a spool and without.

Run: python benchmarks/spool.py
Needs: nothing
Goals: at most 2 µs of CPU in the worker for an event that ``always`` writes and sends, and for one that ``overflow``
writes; replay faster than the 85,000 events a second that the fastest sink has taken; ``track()`` as fast as without.
"""

from __future__ import annotations

import gc
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, events
from asgi_analytics.errors import TransientError
from asgi_analytics.sinks.base import Receipt
from asgi_analytics.sinks.spool_folder import SpoolFolder
from benchmarks.goals import at_least, at_most

EVENTS = 20_000
ROUNDS = 9
OUTAGE = 100_000
FASTEST_SINK = 85_000
"""Events a second: SQLite in batches of a thousand, as it was measured. PostgreSQL takes half of that."""

TASK, USER = uuid4(), uuid4()


def event() -> events.Event:
    return events.TaskCreated(task_id=TASK, user_id=USER, command="build")


def lines(number: int) -> list[bytes]:
    client = AnalyticsClient(service="shop", environment="production", queue_size=number)
    for _ in range(number):
        client.track(event())
    batch: Any = client._ledger.take(number, 1 << 40)
    return list(batch)


def folders() -> None:
    made = lines(EVENTS)
    print(f"CPython {sys.version.split()[0]}, {sum(map(len, made)) // EVENTS} bytes an event\n")
    print("| group | kept in memory | written, µs CPU an event | taken back, µs CPU an event |")
    print("|---|---|---|---|")
    for size in (100, 500, 2_000):
        for keep in (True, False):
            written, taken = [], []
            for _ in range(ROUNDS):
                with tempfile.TemporaryDirectory() as root:
                    folder = SpoolFolder(Path(root), max_bytes=1 << 30, sync=False, keep=keep, target="")
                    gc.collect()
                    began = time.thread_time()
                    for start in range(0, EVENTS, size):
                        assert folder.append(made[start : start + size])
                    written.append(1e6 * (time.thread_time() - began) / EVENTS)
                    began, number = time.thread_time(), 0
                    while folder.waits():
                        found, lost = folder.take(2_000)
                        assert not lost
                        folder.settled(len(found))
                        number += len(found)
                    taken.append(1e6 * (time.thread_time() - began) / EVENTS)
                    assert number == EVENTS
                    folder.close()
            write, take = statistics.median(written), statistics.median(taken)
            print(f"| {size} | {'yes' if keep else 'no'} | {write:.2f} | {take:.2f} |")
            if size == 100:
                what = "written before it is sent" if keep else "written while the sink is away"
                at_most(f"µs of the worker's CPU for an event that is {what}", write + (take if keep else 0), 2)


class Gate:
    """A sink that is away until it is opened, and then does nothing."""

    is_open = False

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        if not self.is_open:
            raise TransientError("away")
        return Receipt()

    async def aclose(self) -> None:
        pass


def replay() -> None:
    logging.disable()
    print("\n| from | events a second |\n|---|---|")
    for name in ("the queue", "the disk"):
        with tempfile.TemporaryDirectory() as root:
            settings = {"queue_size": 2_000, "spool": root} if name == "the disk" else {"queue_size": OUTAGE + 1}
            client = AnalyticsClient.from_url("memory://", service="shop", **settings)
            host: Any = client._delivery.host
            host.sink = gate = Gate()
            for _ in range(OUTAGE):
                while not client.track(event()):
                    time.sleep(0.001)
            if name == "the disk":
                while client.stats().queued + client.stats().in_flight > 1_000:
                    time.sleep(0.01)
            gate.is_open = True
            began = time.perf_counter()
            assert client.flush(120)
            speed = OUTAGE / (time.perf_counter() - began)
            print(f"| {name} | {speed:,.0f} |")
            client.close()
    at_least("thousands of events that are replayed in a second", speed / 1000, FASTEST_SINK / 1000)


def tracking() -> None:
    with tempfile.TemporaryDirectory() as root:
        clients = {
            False: AnalyticsClient(service="shop", queue_size=3_000),
            True: AnalyticsClient(service="shop", queue_size=3_000, spool=root, spool_mode="always"),
        }
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(61):
            for has_spool, client in clients.items():
                batch = client._ledger.take(3_000, 1 << 40)
                client._ledger.settle(batch, duplicates=0, rejected=[])
                began = time.process_time_ns()
                for _ in range(2_048):
                    client.track(event())
                times[has_spool].append((time.process_time_ns() - began) / 2_048 / 1_000)
        without, with_spool = (statistics.median(times[one]) for one in (False, True))
        print(f"\ntrack(): {without:.2f} µs without a spool, {with_spool:.2f} with one")
        at_most("track() with a spool, in track()s without", with_spool / without, 1.05)


def main() -> None:
    folders()
    replay()
    tracking()


if __name__ == "__main__":
    main()
