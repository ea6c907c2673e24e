"""The role that runs exports: it reads what is copied, keeps where it is, and nothing else."""

from __future__ import annotations

from pathlib import Path
from random import Random

import asyncpg
import pytest

from asgi_analytics.errors import ConfigError, OperatorError
from asgi_analytics.exports.erasures import erase_in_exports
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import init_export, want_backfill
from asgi_analytics.exports.status import export_status
from tests.admin.roles import Roles, refused
from tests.exports.stored import USERS, all_ids, an_event, ids, make, read, store

pytest.importorskip("pyarrow")

OURS = ("exports", "export_lanes", "export_refusals", "export_erasures", "export_origin")


async def test_the_exporter_can_run_exports_and_nothing_else(roles: Roles, tmp_path: Path) -> None:
    random = Random(1)
    exporter = f"exporter_{roles.database.name}"
    roles.made.append(exporter)
    report = await roles.make(exporter=exporter)
    assert [(role.purpose, role.is_new) for role in report.roles] == [
        ("writer", True), ("reader", True), ("exporter", True)
    ]  # fmt: skip
    assert not report.warnings
    dsn = await roles.login("copier", member_of=exporter)
    with pytest.raises(OperatorError, match=r"42501|owner"):
        await init_export(dsn, "lake", tmp_path.as_uri())
    await store(roles.admin, [an_event(random) for _ in range(20)])
    await make(roles.database, tmp_path)
    await store(roles.admin, [an_event(random) for _ in range(20)])
    await want_backfill(dsn, "lake")
    assert (await Exporter(dsn, "lake").run(patience=0)).events == 40
    assert ids(read(tmp_path)) == await all_ids(roles.admin)
    assert (await export_status(dsn)).exports[0].events_behind == 0
    await roles.admin.execute("DELETE FROM analytics_events WHERE user_id = $1", USERS[0])
    [erased] = await erase_in_exports(dsn, [USERS[0]])
    assert erased.is_done
    assert erased.rows > 0
    connection = await asyncpg.connect(dsn)
    for statement in (
        "DELETE FROM analytics_events",
        "UPDATE analytics_events SET data = '{}'",
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) "
        "VALUES (gen_random_uuid(), now(), 'x', 'x', '{}')",
        "TABLE analytics_dead_letters",
        "TABLE analytics_visitor_keys",
        "DELETE FROM analytics_exports",
        "INSERT INTO analytics_exports SELECT * FROM analytics_exports",
        "UPDATE analytics_export_origin SET shift = 0",
        "SELECT analytics_export_rebase()",
        "UPDATE analytics_user_traits SET role = 'x'",
    ):
        await refused(connection, statement)
    await connection.close()


async def test_the_reader_sees_how_exports_are_doing_and_no_url(roles: Roles, reader_dsn: str, writer_dsn: str) -> None:
    reader, writer = await asyncpg.connect(reader_dsn), await asyncpg.connect(writer_dsn)
    for table in ("analytics_export_lag", "analytics_export_dead_letters", "analytics_warehouse_sync_status"):
        assert await reader.fetch(f"TABLE {table}") == []
        await refused(writer, f"TABLE {table}")
    for name in OURS:
        await refused(reader, f"TABLE analytics_{name}")
        await refused(writer, f"TABLE analytics_{name}")
    await refused(reader, "DELETE FROM analytics_warehouse_sync_status")
    await refused(reader, "SELECT analytics_erase_from_exports('{}')")
    await reader.close()
    await writer.close()


async def test_three_roles_have_three_names(roles: Roles) -> None:
    with pytest.raises(ConfigError, match="give different names"):
        await roles.make(exporter=roles.reader)
