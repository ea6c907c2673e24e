"""The service over a file: a client that writes, the API, and the dashboard behind its login."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from asgi_analytics.web.dashboard.admission import COOKIE
from asgi_analytics.web.dashboard.pages import PAGES
from tests.kit.sqlite import SqliteDatabase
from tests.reading.happened import insert, random_events
from tests.web.api.service import Process, ask, fill, reading
from tests.web.dashboard.test_admission import SAME_ORIGIN

READS = {"authorization": "Bearer r3ads"}
KEEPS = {"authorization": "Bearer k33ps"}
FUNNEL = {"name": "orders", "steps": ["task_created", "order_placed"]}


async def test_the_service_answers_from_a_file_while_others_write(tmp_path: Path) -> None:
    file = SqliteDatabase(tmp_path / "analytics.db")
    await file.migrate()
    await fill(file)
    connection = await file.connect()
    with Process(file.dsn, ANALYTICS_READ_TOKENS="r3ads", ANALYTICS_TOKENS="k33ps") as process:
        async with process.client() as http:
            assert (await http.get("/ready")).status_code == 200
            assert (await http.get("/overview")).status_code == 401
            http.headers.update(READS)
            for question in reading():
                answer = await ask(http, question)
                assert answer.status_code == 200, (question.path, answer.text)
            pipeline = (await http.get("/pipeline")).json()["results"]
            assert pipeline["database"]["flavour"] == "sqlite"

            now = datetime.now(UTC)
            await insert(connection, random_events(Random(2), 1500, now - timedelta(days=9), now))
            rows = list(csv.reader((await http.get("/events?format=csv")).text.splitlines()))
            assert len(rows) - 1 == await connection.fetchval("SELECT count(*) FROM analytics_events") == 1800

            assert (await http.post("/funnels", json=FUNNEL)).status_code == 401
            made = await http.post("/funnels", json=FUNNEL, headers=KEEPS)
            assert (made.status_code, made.json()["results"]["conversion_window"]) == (201, 14 * 86_400)
            counted = (await http.post("/funnels/query", json={"steps": FUNNEL["steps"]})).json()["results"]
            assert counted["steps"][0]["count"] > 0
            assert (await http.delete("/funnels/orders", headers=KEEPS)).status_code == 204

        async with process.client() as browser:
            assert (await browser.get("/ui/")).status_code == 401
            wrong = await browser.post("/ui/login", data={"token": "n0ne"}, headers=SAME_ORIGIN)
            assert (wrong.status_code, COOKIE in browser.cookies) == (401, False)
            right = await browser.post("/ui/login", data={"token": "r3ads"}, headers=SAME_ORIGIN)
            assert (right.status_code, COOKIE in browser.cookies) == (303, True)
            for page in PAGES:
                shown = await browser.get(f"/ui/{page.path}?range=7d&timezone=Europe/Berlin")
                assert (shown.status_code, 'class="bad"' in shown.text) == (200, False), page.path
            assert "SQLite 3." in (await browser.get("/ui/pipeline")).text
        assert await process.end() == 0
        assert "Traceback" not in process.log
    await file.close()
