"""What is true after every fault: each accepted event has one fate, and the table holds exactly the stored ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any
from uuid import UUID

from asgi_analytics import AnalyticsClient
from asgi_analytics.pipeline.stats import Stats
from tests.faults.witness import accepted_ids, assert_accounted
from tests.kit.databases import Database

ALL_IDS = "SELECT id FROM analytics_events"


def assert_balanced(stats: Stats) -> None:
    """Fail unless every accepted event is in exactly one place."""
    settled = stats.stored + stats.duplicates + stats.rejected.total() + stats.abandoned
    fates = settled + stats.spooled + stats.queued + stats.in_flight
    assert stats.accepted == fates, stats.as_dict()


async def ids_in(database: Database) -> list[UUID]:
    """Return the ids of the table; fails where one is there twice."""
    connection = await database.connect()
    ids = [row["id"] for row in await connection.fetch(ALL_IDS)]
    twice = [one for one, number in Counter(ids).items() if number > 1]
    assert not twice, f"{len(twice)} ids are stored twice: {twice[:3]}"
    return ids


async def assert_all_stored(
    database: Database, folder: Path, when: str = "exit", *, processes: int = 1
) -> list[dict[str, Any]]:
    """Fail unless so many witnessed processes had all stored that they had accepted; return their figures.

    The table holds exactly that, each event once.
    """
    found = assert_accounted(folder, when, processes=processes)
    assert [one["stored"] + one["duplicates"] for one in found] == [one["accepted"] for one in found]
    assert set(await ids_in(database)) == accepted_ids(folder)
    return found


async def assert_stored(client: AnalyticsClient, database: Database, expected: Collection[UUID]) -> None:
    """Fail unless all is settled, and the table holds exactly the expected ids, each once."""
    stats = client.stats()
    assert_balanced(stats)
    assert (stats.queued, stats.in_flight) == (0, 0), stats.as_dict()
    stored = set(await ids_in(database))
    wanted = set(expected)
    assert stored == wanted, f"{len(wanted - stored)} are missing, {len(stored - wanted)} are nobody's"
