"""Redshift: the real redshift-connector and boto3 against stand-ins."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from datetime import UTC
from random import Random
from typing import Any

import asyncpg
import pytest

from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.base import SCHEMA, Refused
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import init_export
from tests.exports.contract import WarehouseContract, some_rows
from tests.exports.outages import Clock
from tests.exports.stored import all_ids, an_event, store
from tests.kit.databases import Cluster, Database, query, run
from tests.kit.servers import Servers
from tests.warehouses.stand_in import RedshiftServer

pytest.importorskip("redshift_connector")
# What redshift-connector leaves open when its connection is cut: its close() forgets the file of the socket then.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def trusting(servers: Servers) -> Iterator[Cluster]:
    cluster = servers.private("postgresql", {})
    cluster.allow("host all all 127.0.0.1/32 trust")
    cluster.restart()
    yield cluster
    cluster.end()


@pytest.fixture
def server(trusting: Cluster, bucket: Any) -> Iterator[RedshiftServer]:
    server = RedshiftServer(
        trusting.host, trusting.port, lambda name, key: bucket.get_object(Bucket=name, Key=key)["Body"].read()
    )
    server.dsn = trusting.dsn("postgres")
    query(trusting.dsn("postgres"), "DROP TABLE IF EXISTS platform_events")
    query(trusting.dsn("postgres"), "DROP TABLE IF EXISTS asgi_analytics_loads")
    yield server
    server.close()
    gc.collect()  # here, and not in a test of something else


@pytest.fixture
def url(server: RedshiftServer, bucket_service: str) -> str:
    return (
        f"redshift://postgres:s%40crethunter2@127.0.0.1:{server.port}/postgres?stage=s3://lake/stage&ssl=false"
        f"&region=us-east-1&stage_endpoint={bucket_service}&iam_role=arn:aws:iam::1:role/copy"
    )


class TestRedshift(WarehouseContract):
    @pytest.fixture
    def warehouse(self, server: RedshiftServer, url: str, bucket: Any) -> Iterator[Any]:
        self.server = server
        yield warehouse_from_url(url)
        assert not bucket.list_objects_v2(Bucket="lake").get("Contents"), "the stage is not empty"

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        async def fetch() -> list[dict[str, Any]]:
            connection = await asyncpg.connect(self.server.dsn)
            rows = [dict(row) for row in await connection.fetch("TABLE platform_events")]
            await connection.close()
            return rows

        found = run(fetch())
        for row in found:
            row["timestamp"], row["ingested_at"] = (row[name].astimezone(UTC) for name in ("timestamp", "ingested_at"))
        return found

    def test_an_answer_that_is_lost_does_not_store_twice(self, warehouse: Any, server: RedshiftServer) -> None:
        warehouse.prepare(SCHEMA)
        rows = some_rows(20)
        server.cut_after = "COMMIT"
        with pytest.raises(TransientError):
            warehouse.load(rows, "t-1")
        warehouse.load(rows, "t-1")
        self.same(warehouse, rows)

    def test_what_it_refuses_costs_the_batch_and_nothing_else(self, warehouse: Any) -> None:
        warehouse.prepare(SCHEMA)
        rows = some_rows(4)
        long = (*rows[2][:8], '{"a": "' + "ä" * 40_000 + '"}', *rows[2][9:])
        with pytest.raises(Refused) as caught:
            warehouse.load([*rows[:2], long, rows[3]], "t-1")
        assert caught.value.places == (2,)
        with pytest.raises(Refused) as caught:
            warehouse.load([*rows[:2], (*rows[2][:8], "{not json", *rows[2][9:])], "t-2")
        assert "not json" not in str(caught.value)
        warehouse.load(rows[:2], "t-3")
        self.same(warehouse, rows[:2])

    def test_a_column_that_is_missing_is_added(self, warehouse: Any, server: RedshiftServer) -> None:
        warehouse.prepare(SCHEMA)
        query(server.dsn, "ALTER TABLE platform_events DROP COLUMN device_info")
        warehouse.prepare(SCHEMA)
        warehouse.load(some_rows(5), "t-1")
        self.same(warehouse, some_rows(5))


def test_who_is_away_or_refuses_is_told_without_a_password(url: str, server: RedshiftServer, bucket: Any) -> None:
    with pytest.raises(TransientError) as away:
        warehouse_from_url(url.replace(str(server.port), "1")).prepare(SCHEMA)
    with pytest.raises(OperatorError) as refused:
        warehouse_from_url(url.replace("/postgres?", "/nowhere?")).prepare(SCHEMA)
    warehouse_from_url(url).prepare(SCHEMA)
    with pytest.raises(OperatorError, match="NoSuchBucket") as missing:
        warehouse_from_url(url.replace("s3://lake", "s3://nowhere")).load(some_rows(1), "t-1")
    for error in (away, refused, missing):
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("rest", ["host/db", "host/db?stage=/x", "/db?stage=s3://b/p", "host?stage=s3://b/p"])
def test_a_wrong_url_is_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match="stage=s3"):
        warehouse_from_url(f"redshift://{rest}")


async def test_an_export_through_lost_answers_and_an_outage_of_ten_minutes(
    database: Database, url: str, server: RedshiftServer, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(1)
    connection = await database.connect()
    await init_export(database.dsn, "warehouse", url)
    exporter = Exporter(database.dsn, "warehouse")
    for _ in range(4):
        await store(connection, [an_event(random) for _ in range(30)])
        server.cut_after = "COMMIT"
        await exporter.run(patience=20)
        await asyncio.sleep(0)
    server.close()
    await store(connection, [an_event(random) for _ in range(30)])
    with pytest.raises(TransientError, match="does not answer"):
        await exporter.run(patience=0)
    clock = Clock(monkeypatch)
    clock.at(600, server.listen)
    assert (await exporter.run(patience=1200)).events == 30
    assert clock.now >= 600
    found = await asyncio.to_thread(
        query, server.dsn, "SELECT array_agg(event_id ORDER BY event_id) FROM platform_events"
    )
    assert found == await all_ids(connection)
