"""What the tests of the API share: events, the command as a process, and questions that hang."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import httpx2
from starlette.applications import Starlette

from asgi_analytics.reading import QUESTIONS, Question
from tests.kit.databases import Database
from tests.kit.sqlite import SqliteDatabase
from tests.reading.happened import an_event, insert, random_events
from tests.web.ingestion import service
from tests.web.ingestion.service import client

__all__ = ["Process", "arguments_of", "ask", "asking", "fill", "in_path", "locked", "opened", "reading"]

IN_PATHS = {"fingerprint": "f1", "id": "s1", "user_id": str(UUID(int=3)), "name": "checkout"}
"""What the events of `fill` have of each parameter that a path holds."""
BESIDE: dict[str, dict[str, Any]] = {
    "query_funnel": {"steps": ["task_created", {"event_type": "task_completed"}], "conversion_window": 3600},
    "query_trends": {"series": ["task_created", "order_placed"]},
}
"""Arguments that some questions cannot be asked without, beside those in the path."""

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


def arguments_of(question: Question) -> dict[str, Any]:
    """Return arguments that a question can be asked with."""
    return {**in_path(question), **BESIDE.get(question.name, {})}


async def ask(http: httpx2.AsyncClient, question: Question, prefix: str = "", /, **options: Any) -> httpx2.Response:
    """Ask a question over HTTP with these arguments, and options for the URL."""
    url = prefix + question.path.format(**in_path(question))
    beside = BESIDE.get(question.name, {})
    if question.method == "POST":
        return await http.post(url, json=beside, params=options)
    return await http.request(question.method, url, params=beside | options)


def reading() -> list[Question]:
    """Return the questions that change nothing."""
    return [question for question in QUESTIONS.values() if not question.changes]


async def fill(database: Database | SqliteDatabase, number: int = 300) -> None:
    """Insert random events of the last days, one of a moment ago with all that IN_PATHS names, and keep a funnel."""
    now = datetime.now(UTC) - timedelta(seconds=1)
    events = random_events(Random(1), number - 1, now - timedelta(days=5), now)
    error = an_event(Random(2), now, "application_error")
    data = error.data | {"fingerprint": IN_PATHS["fingerprint"]}
    user = UUID(IN_PATHS["user_id"])
    events.append(error._replace(service="shop", user_id=user, session_id=IN_PATHS["id"], data=data))
    connection = await database.connect()
    await insert(connection, events)
    if isinstance(database, SqliteDatabase):
        await connection.execute(
            "INSERT INTO funnels (id, name, steps, conversion_window)"
            """ VALUES ($1, 'checkout', '[{"event_type": "task_created"}, {"event_type": "task_completed"}]', 3600)""",
            uuid4(),
        )
        return
    await connection.execute(
        "INSERT INTO analytics_funnels (name, steps, conversion_window)"
        """ VALUES ('checkout', '[{"event_type": "task_created"}, {"event_type": "task_completed"}]', '1 hour')"""
    )


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
