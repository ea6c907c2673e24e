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
from uuid import uuid4

import psutil

from asgi_analytics import AnalyticsClient, events


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
    total = 0
    for number in (1, client.settings.queue_size + 2_000, *[options.events // 5] * 5):
        track(number)
        time.sleep(0.2)
        total += number
        stats = client.stats()
        print(f"| {total} | {stats.queued + stats.in_flight} | {stats.dropped.total()} | {weight():.1f} |", flush=True)


if __name__ == "__main__":
    main()
