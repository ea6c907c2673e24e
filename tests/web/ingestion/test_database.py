"""The service and its database: away, without tables, with few rights, in a pool and on loops of others."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import Database
from tests.kit.proxy import Proxy
from tests.web.ingestion.service import POISON, client, count, event, poisoned, post


async def test_a_failed_write_is_500_with_retry_after_and_nothing_stored(
    database: Database, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_ingestion_app(database_url=proxy.dsn)
    async with client(app) as http:
        batch = [event() for _ in range(3)]
        proxy.refuse()
        answer = await post(http, batch)
        assert answer.status_code == 500
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
        assert await count(database) == 0
        assert (await http.get("/ready")).status_code == 503
        assert (await http.get("/health")).json() == {"status": "ok"}
        proxy.accept()
        assert (await post(http, batch)).json() == {"received": 3, "duplicates": 0, "rejected": []}
    await app.state.ingestion.aclose()
    assert batch[0]["event_id"] not in caplog.text


async def test_a_request_to_the_database_that_was_lost_is_repeated(database: Database, proxy: Proxy) -> None:
    app = create_ingestion_app(database_url=proxy.dsn)
    async with client(app) as http:
        batch = [event() for _ in range(3)]
        proxy.lose_request(batch[1]["event_id"].encode())
        assert (await post(http, batch)).json() == {"received": 3, "duplicates": 0, "rejected": []}
        assert proxy.lost == 1
    await app.state.ingestion.aclose()
    assert await count(database) == 3


async def test_an_answer_of_the_database_that_was_lost_stores_nothing_twice(database: Database, proxy: Proxy) -> None:
    app = create_ingestion_app(database_url=proxy.dsn)
    async with client(app) as http:
        await post(http, [event()])
        batch = [event() for _ in range(3)]
        proxy.lose_answer(b"INSERT 0")
        assert (await post(http, batch)).json() == {"received": 3, "duplicates": 3, "rejected": []}
        assert proxy.lost == 1
        assert (await post(http, batch)).json() == {"received": 3, "duplicates": 3, "rejected": []}
    await app.state.ingestion.aclose()
    assert await count(database) == 4


async def test_missing_tables_are_500_and_not_ready(empty_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    app = create_ingestion_app(database_url=empty_database.dsn)
    async with client(app) as http:
        answer = await post(http, [event()])
        assert (answer.status_code, answer.headers["retry-after"]) == (500, "10")
        assert (await http.get("/ready")).status_code == 503
    await app.state.ingestion.aclose()
    assert "analytics-migrate all" in caplog.text
    assert "analytics-migrate" not in answer.text


async def test_a_user_with_the_least_rights_is_enough(database: Database) -> None:
    connection = await database.connect()
    user = f"ingest_{database.name}"
    await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
    try:
        app = create_ingestion_app(database_url=database.cluster.dsn(database.name, user, "x"))
        async with client(app) as http:
            assert (await http.get("/ready")).status_code == 503
            await connection.execute(
                f"""GRANT INSERT ON analytics_events, analytics_dead_letters TO {user};
                GRANT SELECT (timestamp, id) ON analytics_events TO {user};
                GRANT SELECT (id) ON analytics_dead_letters TO {user};"""
            )
            await asyncio.sleep(1.1)  # for so long the answer of /ready is given again
            assert (await http.get("/ready")).status_code == 200
            answer = await post(http, poisoned(event(), event(**POISON)))
            assert answer.json()["received"] == 1
        await app.state.ingestion.aclose()
    finally:
        await connection.execute(f"DROP OWNED BY {user}; DROP ROLE {user}")


async def test_mounted_without_a_lifespan_it_works(database: Database) -> None:
    app = create_ingestion_app(database_url=database.dsn, tokens=["secret"])
    outer = Starlette(routes=[Mount("/analytics", app=app)])
    async with client(outer, Authorization="Bearer secret") as http:
        answer = await http.post("/analytics/events/batch", json=[event()])
        assert answer.json()["received"] == 1
        assert (await http.get("/analytics/ready")).status_code == 200
        assert (await http.get("/analytics/openapi.json")).json()["servers"] == [{"url": "/analytics"}]
    await app.state.ingestion.aclose()


async def test_a_pool_of_ones_own_stays_open(database: Database) -> None:
    async with asyncpg.create_pool(database.dsn, min_size=0) as pool:
        app = create_ingestion_app(pool=pool)
        async with client(app) as http:
            assert (await post(http, [event()])).json()["received"] == 1
        await app.state.ingestion.aclose()
        assert await pool.fetchval("SELECT count(*) FROM analytics_events") == 1


def test_a_loop_that_ended_takes_nothing_with_it(database: Database) -> None:
    app = create_ingestion_app(database_url=database.dsn)

    async def once() -> None:
        async with client(app) as http:
            assert (await post(http, [event()])).json()["received"] == 1
        await app.state.ingestion.aclose()

    for _ in range(2):
        asyncio.run(once())
