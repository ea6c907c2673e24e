"""A person whose events were exported is erased in the warehouse by the next run of the export."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from asgi_analytics.admin import subjects
from tests.exports.stored import USERS, all_ids, an_event, ids, make, read, run, store
from tests.kit.databases import Database

ERASURES = "analytics_export_erasures"


@pytest.mark.parametrize("kind", ["erase", "anonymise"])
async def test_copies_in_a_warehouse_go_with_its_next_run(database: Database, tmp_path: Path, kind: str) -> None:
    random, gone = Random(3), USERS[0]
    connection = await database.connect()
    await make(database, tmp_path)
    await store(connection, [an_event(random) for _ in range(200)])
    await run(database)
    assert str(gone) in {row["user_id"] for row in read(tmp_path)}

    for _ in range(2):  # what was noted is not noted again
        report = await getattr(subjects, kind)(database.dsn, gone)
        assert ERASURES not in report.request.rows
        assert [one for one in report.warnings if "analytics-export run lake" in one]
        assert [(one.table, one.column) for one in report.mentions] == [(ERASURES, "user_id")]
    assert str(gone) in {row["user_id"] for row in read(tmp_path)}

    await run(database)
    rows = read(tmp_path)
    assert str(gone) not in {row["user_id"] for row in rows}
    if kind == "erase":
        assert ids(rows) == await all_ids(connection)
    assert not await connection.fetch(f"TABLE {ERASURES}")
    report = await getattr(subjects, kind)(database.dsn, USERS[5])
    assert {str(USERS[5]), str(USERS[1])} & {row["user_id"] for row in rows}
    await run(database)
    assert (await subjects.export(database.dsn, USERS[5])).tables == {}
