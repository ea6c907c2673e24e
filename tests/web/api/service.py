"""What the tests of the API share: events, the command as a process, and questions that hang."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import httpx2
from starlette.applications import Starlette

from asgi_analytics.reading import Question
from tests.kit.databases import Database
from tests.reading.happened import insert, random_events
from tests.web.ingestion import service
from tests.web.ingestion.service import client

__all__ = ["Process", "asking", "fill", "in_path", "locked", "opened"]

IN_PATHS = {"fingerprint": "f1", "id": "s1", "user_id": str(UUID(int=3))}
"""What the events of `fill` have of each parameter that a path holds."""

ASKING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'
"""


class Process(service.Process):
    """The command ``analytics-api`` as a process on a free port."""

    module = "asgi_analytics.cli.api"


@asynccontextmanager
async def opened(app: Starlette) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client of an application whose lifespan runs."""
    async with app.router.lifespan_context(app), client(app) as http:
        yield http


def in_path(question: Question) -> dict[str, str]:
    """Return arguments for what stands in braces in the path of a question."""
    return {name: IN_PATHS[name] for name in re.findall(r"\{(\w+)\}", question.path)}


async def fill(database: Database, number: int = 300) -> None:
    """Insert random events of the last days."""
    now = datetime.now(UTC)
    events = random_events(Random(1), number, now - timedelta(days=5), now - timedelta(seconds=1))
    await insert(await database.connect(), events)


@asynccontextmanager
async def locked(database: Database) -> AsyncIterator[None]:
    """Let every question that reads events hang for the time of a block."""
    connection = await database.connect()
    async with connection.transaction():
        await connection.execute("LOCK TABLE analytics_events IN ACCESS EXCLUSIVE MODE")
        yield


async def asking(database: Database) -> int:
    """Return how many statements hang in the server."""
    if not hasattr(database, "watching"):
        database.watching = await database.connect()  # type: ignore[attr-defined]
    return int(await database.watching.fetchval(ASKING))  # type: ignore[attr-defined]
