"""What the process weighs while the database is away: it grows until the queue is full, and no further.

Run: python benchmarks/outage.py [--events 500000]
Needs: nothing: the database that it names does not exist
Goal: no growth from the full queue on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from uuid import uuid4

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from asgi_analytics import AnalyticsClient, events
from benchmarks.goals import at_most


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=500_000)
    options = parser.parse_args()
    logging.disable()
    process = psutil.Process()
    client = AnalyticsClient.from_url("postgresql://nobody@127.0.0.1:9/nothing", service="shop", close_timeout=0.0)

    def weight() -> float:
        return float(process.memory_info().rss) / 1024 / 1024

    def track(number: int) -> None:
        for _ in range(number):
            client.track(events.TaskCreated(task_id=uuid4(), user_id=uuid4(), command="build"))

    print(f"CPython {sys.version.split()[0]}")
    print("\n| tracked | queued and in flight | dropped | MiB |\n|---|---|---|---|")
    total, weights = 0, []
    for number in (1, client.settings.queue_size + 2_000, *[options.events // 5] * 5):
        track(number)
        time.sleep(0.2)
        total += number
        stats = client.stats()
        weights.append(weight())
        print(
            f"| {total} | {stats.queued + stats.in_flight} | {stats.dropped.total()} | {weights[-1]:.1f} |", flush=True
        )
    at_most("MiB that the process grows while a full queue refuses events", max(0.0, weights[-1] - weights[1]), 1)


if __name__ == "__main__":
    main()
