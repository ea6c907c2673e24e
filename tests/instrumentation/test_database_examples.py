"""The examples about databases run, and leave behind what they say."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asgi_analytics.instrumentation.asyncpg import instrument_asyncpg
from asgi_analytics.testing import capture_events
from tests.kit.databases import Database

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_another_driver() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "ANALYTICS_URL"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / "other_driver.py"], capture_output=True, text=True, check=True, env=environ
    )
    assert "in stock: brass lamp, red lamp\n" in done.stdout
    kinds = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("}")]
    assert sorted(kinds) == ["api_request", "application_error", *["database_query"] * 3]
    assert done.stderr == ""


@pytest.fixture
def sqlalchemy_app(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    pytest.importorskip("sqlalchemy.ext.asyncio")
    pytest.importorskip("starlette")
    monkeypatch.setenv("DATABASE_URL", database.dsn)
    spec = importlib.util.spec_from_file_location("example_sqlalchemy_app", EXAMPLES / "sqlalchemy_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    yield module
    with capture_events() as captured:
        instrument_asyncpg(captured.client).uninstrument()
    module.client.close()


async def get(app: Any, path: str) -> int:
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    try:
        await app({**scope, "root_path": "", "http_version": "1.1", "scheme": "http"}, receive, send)
    except Exception as error:
        assert "example_poems" in str(error)  # the one that the example wants
    return statuses[0]


async def test_sqlalchemy(sqlalchemy_app: ModuleType, database: Database) -> None:
    app = sqlalchemy_app.app
    async with sqlalchemy_app.lifespan(app):
        statuses = [await get(app, path) for path in ("/authors", "/authors/1", "/authors/9", "/broken")]
    assert statuses == [200, 200, 404, 500]
    assert await sqlalchemy_app.client.aflush(20)
    connection = await database.connect()
    requests = await connection.fetch(
        """
        SELECT data ->> 'endpoint' AS endpoint, (data ->> 'db_queries')::int AS queries,
            (data ->> 'db_repeats')::int AS repeats
        FROM analytics_events WHERE event_type = 'api_request' ORDER BY timestamp
        """
    )
    assert [tuple(row) for row in requests] == [
        ("/authors", 4, 3),
        ("/authors/{author_id}", 1, 1),
        ("/authors/{author_id}", 1, 1),
        ("/broken", 1, 1),
    ]
    queries = await connection.fetch(
        """
        SELECT data ->> 'query_type' AS kind, data ->> 'table' AS name, data ->> 'sqlstate' AS sqlstate, count(*)
        FROM analytics_events WHERE event_type = 'database_query' AND data ->> 'endpoint' IS NOT NULL
        GROUP BY 1, 2, 3 ORDER BY 2, 3
        """
    )
    assert [tuple(row) for row in queries] == [
        ("SELECT", "example_authors", None, 3),
        ("SELECT", "example_notes", None, 3),
        ("SELECT", "example_poems", "42P01", 1),
    ]
    sinks_own = "SELECT count(*) FROM analytics_events WHERE data ->> 'statement' LIKE 'INSERT INTO analytics%'"
    assert await connection.fetchval(sinks_own) == 0
