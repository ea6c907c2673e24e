"""The database goes on elsewhere: on a standby that was promoted, or in another cluster, from a dump."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from random import Random

import asyncpg
import pytest

from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import init_export, rebase
from tests.exports.stored import Fake, all_ids, an_event, ids, store
from tests.faults.standby import Standby, cluster, standby
from tests.kit.databases import Cluster, Database
from tests.kit.servers import Servers

__all__ = ["cluster", "standby"]

INDEX = "SELECT to_regclass('analytics_events_export_xid_idx') IS NOT NULL"


async def test_a_promoted_standby_goes_on_where_the_primary_was(
    private_database: Database, cluster: Cluster, standby: Standby, tmp_path: Path
) -> None:
    random = Random(1)
    fake = Fake()
    database = private_database
    connection = await database.connect()
    await init_export(database.dsn, "lake", tmp_path.as_uri())
    await store(connection, [an_event(random) for _ in range(100)])
    await Exporter(database.dsn, "lake", warehouse=fake).run()
    await store(connection, [an_event(random) for _ in range(100)])
    fake.lose_answer = lambda: True
    with pytest.raises(TransientError, match="answer was lost"):
        await Exporter(database.dsn, "lake", warehouse=fake).run(patience=0)
    assert len(fake.rows) == 140  # the warehouse has a page of which the database does not know that
    fake.lose_answer = None
    late = await database.connect()
    await late.execute("BEGIN")
    await store(late, [an_event(random)])  # never committed
    dsn = standby.dsn(database.name)
    with pytest.raises(OperatorError, match="use the primary"):
        await Exporter(dsn, "lake", warehouse=fake).run(patience=0)
    await database.close()
    cluster.stop("immediate")
    standby.promote()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET synchronous_commit = off")
        await store(connection, [an_event(random) for _ in range(50)])
        assert (await Exporter(dsn, "lake", warehouse=fake).run(patience=5)).events == 150
        assert ids(fake.rows) == await all_ids(connection)
        assert len({token.split("-")[2] for token in fake.tokens}) == 2, "what is new has the new timeline"
    finally:
        await connection.close()
        cluster.start()  # its fixture ends it


@pytest.mark.long
async def test_a_restored_dump_goes_on_after_a_rebase(
    private_database: Database, servers: Servers, tmp_path: Path
) -> None:
    database = private_database
    random = Random(2)
    fake = Fake()
    connection = await database.connect()
    await init_export(database.dsn, "lake", tmp_path.as_uri())
    for _ in range(300):  # the numbers of its transactions are far above those of the other cluster
        await store(connection, [an_event(random)])
    await Exporter(database.dsn, "lake", warehouse=fake).run()
    left = await store(connection, [an_event(random) for _ in range(50)])
    assert isinstance(database.cluster, Cluster)
    other = servers.private(database.flavour, {})
    try:
        name = other.create()
        restored = await asyncpg.connect(other.dsn(name))
        with tempfile.TemporaryFile() as dump:
            subprocess.run([database.cluster.program("pg_dump"), "-Fc", database.dsn], stdout=dump, check=True)
            dump.seek(0)
            if database.flavour == "timescaledb":
                await restored.execute("CREATE EXTENSION timescaledb")
                await restored.fetchval("SELECT timescaledb_pre_restore()")
            subprocess.run([other.program("pg_restore"), "-d", other.dsn(name)], stdin=dump, check=True)
            if database.flavour == "timescaledb":
                await restored.fetchval("SELECT timescaledb_post_restore()")
        assert await restored.fetchval(INDEX)
        exporter = Exporter(other.dsn(name), "lake", warehouse=fake)
        with pytest.raises(OperatorError, match="analytics-export rebase"):
            await exporter.run(patience=0)
        assert (await rebase(other.dsn(name))).is_done
        for _ in range(3):
            new = await store(restored, [an_event(random) for _ in range(20)])
            left += new
            assert (await exporter.run()).events == len(left)
            left = []
            assert await restored.fetchval("SELECT events_behind FROM analytics_export_lag") == 0
        assert ids(fake.rows) == await all_ids(restored)
        await restored.close()
    finally:
        other.end()
