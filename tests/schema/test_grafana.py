"""Grafana: the SQL of every panel runs with the rights of the reader role, on both kinds of database."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import asyncpg

from tests.kit.databases import Database
from tests.reading.conftest import reader_dsn
from tests.reading.happened import insert, random_events

__all__ = ["reader_dsn"]

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}


def queries(board: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the SQL of a board with the title of its panel."""
    found = [(panel["title"], target["rawSql"]) for panel in board["panels"] for target in panel["targets"]]
    return found + [(one["name"], one["target"]["rawSql"]) for one in board["annotations"]["list"]]


WIDTH = 24
"""Columns of the grid that panels lie on."""
NUMBERS = (int, float, Decimal)
FIELDS = (*NUMBERS, str, bool, datetime, None.__class__)
"""What the data source makes a field of; of all else it makes text."""


def targets(board: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the title, the SQL and the format of each panel."""
    return [(one["title"], t["rawSql"], t["format"]) for one in board["panels"] for t in one["targets"]]


def assert_can_be_drawn(rows: list[Any], title: str) -> None:
    """Assert what the data source demands of a time series: a time in order, numbers, and texts as labels."""
    times = [row["time"] for row in rows]
    assert times == sorted(times), title
    assert all(isinstance(at, (datetime, *NUMBERS)) for at in times), title
    for row in rows:
        others = [value for name, value in row.items() if name != "time"]
        assert any(isinstance(value, NUMBERS) or value is None for value in others), title
        assert all(isinstance(value, (str, *NUMBERS)) or value is None for value in others), title
    labels = [(row["time"], *(v for v in row.values() if isinstance(v, str))) for row in rows]
    assert len(labels) == len(set(labels)), title  # else one point would hide another


def expanded(sql: str, service: str, start: datetime, end: datetime) -> str:
    """Return SQL as Grafana sends it: with the macros of its PostgreSQL data source, and the variables, replaced."""
    first, last = f"'{start:%Y-%m-%dT%H:%M:%SZ}'", f"'{end:%Y-%m-%dT%H:%M:%SZ}'"
    sql = re.sub(r"\$__timeFilter\(([^)]+)\)", rf"\1 BETWEEN {first} AND {last}", sql)
    sql = re.sub(r"\$__timeGroup\(([^,]+), '1h'\)", r"floor(extract(epoch from \1)/3600)*3600", sql)
    quoted = "'" + service.replace("'", "''") + "'"
    sql = sql.replace("$__timeFrom()", first).replace("$__timeTo()", last).replace("${service:sqlstring}", quoted)
    assert "$" not in sql, sql
    return sql


async def test_every_panel_runs_on_both_kinds_with_the_reader_role(database: Database, reader_dsn: str) -> None:
    now = datetime.now(UTC)
    start, end = now - timedelta(days=6), now + timedelta(hours=1)
    events = random_events(Random(2), 400, now - timedelta(days=5), now - timedelta(seconds=1))
    events += [
        one._replace(id=uuid4(), event_type="page_view", data={"page": "/"}, user_id=None, context={"visitor": "v"})
        for one in events[:3]
    ]
    await insert(await database.connect(), events)
    requests = sum(event.event_type == "api_request" for event in events)
    connection = await asyncpg.connect(reader_dsn)
    try:
        for name, board in BOARDS.items():
            for title, sql in queries(board):
                for service in ("", "shop", "o'brien"):
                    rows = await connection.fetch(expanded(sql, service, start, end))
                    if title == "Requests" and service == "" and len(rows) == 1:
                        assert rows[0][0] == requests, name
                    if '"time"' in sql and rows:
                        assert next(iter(rows[0].keys())) == "time"
            for title, sql, format in targets(board):
                rows = await connection.fetch(expanded(sql, "", start, end))
                assert rows or name == "pipeline", title
                assert all(isinstance(value, FIELDS) for row in rows for value in row.values()), title
                if format == "time_series":
                    assert_can_be_drawn(rows, title)
    finally:
        await connection.close()


def test_the_boards_are_provisioned_as_they_are() -> None:
    assert set(BOARDS) == {"api", "product", "pipeline"}
    for board in BOARDS.values():
        assert board["id"] is None  # else a second import would fail
        assert "__inputs" not in board  # which provisioning does not fill
        assert all(panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"])
    assert len({board["uid"] for board in BOARDS.values()}) == 3
    sources = (FOLDER / "provisioning" / "datasources" / "analytics.yaml").read_text()
    assert "uid: asgi-analytics" in sources
    assert "password: ${ANALYTICS_DATABASE_PASSWORD}" in sources


def test_the_boards_are_as_the_model_of_grafana_says() -> None:
    sources = (FOLDER / "provisioning" / "datasources" / "analytics.yaml").read_text()
    for name, board in BOARDS.items():
        assert board["schemaVersion"] >= 39, name
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]), name
        variables = {one["name"]: one for one in board["templating"]["list"]}
        assert f"uid: {variables['datasource']['current']['value']}\n" in sources
        assert f"type: {variables['datasource']['query']}\n" in sources
        used = set(re.findall(r"\$\{(\w+)", json.dumps(board)))
        assert used == set(variables), name
        assert {one["type"] for one in variables.values()} <= {"datasource", "textbox"}, (
            name
        )  # none has rows of its own
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            assert panel["type"] in ("stat", "timeseries", "table"), panel["title"]
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= WIDTH, panel["title"]
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells
            for target in panel["targets"]:
                assert target["datasource"] == panel["datasource"] == {"type": "postgres", "uid": "${datasource}"}
                assert target["format"] == ("time_series" if panel["type"] == "timeseries" else "table")
                assert (target["rawQuery"], target["editorMode"]) == (True, "code")
                macros = set(re.findall(r"\$(__\w+)", target["rawSql"]))
                assert macros <= {"__timeFilter", "__timeFrom", "__timeTo", "__timeGroup"}
