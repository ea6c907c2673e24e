"""A driver that is not instrumented: its functions say themselves that they are queries.

shows:   capture_query around sqlite3, a synchronous driver, with capture_request and capture_errors for a job
needs:   nothing: the events are printed; with ANALYTICS_URL they are stored
install: pip install asgi-analytics
run:     python examples/other_driver.py
see:     the lines that it prints: three queries, one of them failed, the job they belong to, and its error
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator

from asgi_analytics import AnalyticsClient, MemorySink, capture_errors, capture_query, capture_request, set_user

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="stock")
database = sqlite3.connect(":memory:")
database.execute("CREATE TABLE lamps (name TEXT PRIMARY KEY, stock INTEGER)")


@capture_query(client, "INSERT", "lamps")
def add(*lamps: tuple[str, int]) -> sqlite3.Cursor:
    """Return the cursor: its ``rowcount`` becomes ``rows_affected``."""
    return database.executemany("INSERT INTO lamps VALUES (?, ?)", lamps)


@capture_query(client, "SELECT", "lamps")
def in_stock() -> Iterator[str]:
    """Yield as the caller asks; the time between two steps is the caller's, and does not count."""
    for (name,) in database.execute("SELECT name FROM lamps WHERE stock > 0 ORDER BY name"):
        yield name


@capture_request(client, "nightly stocktaking")
@capture_errors(client)
def take_stock() -> None:
    set_user("the night watchman")
    add(("red lamp", 3), ("brass lamp", 1), ("paper lamp", 0))
    print("in stock:", ", ".join(in_stock()))
    add(("red lamp", 5))  # is there already


if __name__ == "__main__":
    try:
        take_stock()
    except sqlite3.IntegrityError as error:
        print("the stocktaking failed:", error)
    client.close()
    if isinstance(client.sink, MemorySink):
        for event in client.sink.events:
            shown = {name: value for name, value in event.data.items() if name not in ("fingerprint", "stack")}
            print(event.event_type, shown)
    database.close()
