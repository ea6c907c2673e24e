"""Parquet files in Google Cloud Storage: pyarrow's real client against gcp-storage-emulator."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.base import SCHEMA
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import init_export
from tests.exports.contract import WarehouseContract, some_rows
from tests.exports.outages import Clock
from tests.exports.stored import all_ids, an_event, ids, store
from tests.kit.databases import Database, free_port

pytest.importorskip("pyarrow")
emulators = pytest.importorskip("gcp_storage_emulator.server")


class Service:
    """The emulator, on a port of its own, with a bucket ``lake``; what is in it is kept while it is away."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder

    def start(self) -> None:
        self._server = emulators.create_server(
            "127.0.0.1", self.port, in_memory=False, default_bucket="lake", data_dir=str(self._folder)
        )
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def url(self, bucket: str = "lake") -> str:
        return f"gs://anonymous@{bucket}/a/b?endpoint_override=http://127.0.0.1:{self.port}&retry_limit_seconds=0.5"

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all files, by the protocol's own words."""
        import json
        from urllib.parse import quote
        from urllib.request import urlopen

        from pyarrow import parquet

        rows: list[dict[str, Any]] = []
        base = f"http://127.0.0.1:{self.port}/storage/v1/b/lake/o"
        for found in json.loads(urlopen(base).read()).get("items", []):
            assert found["name"].startswith("a/b/platform_events/day=20")
            content = urlopen(f"{base}/{quote(found['name'], safe='')}?alt=media").read()
            rows += parquet.read_table(io.BytesIO(content), partitioning=None).to_pylist()
        return rows


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "objects")
    service.start()
    yield service
    service.stop()


class TestGoogleBucket(WarehouseContract):
    @pytest.fixture
    def warehouse(self, service: Service) -> Any:
        self.service = service
        return warehouse_from_url(service.url())

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        return self.service.rows()


def test_a_bucket_that_is_not_there_is_the_operators(service: Service) -> None:
    with pytest.raises(OperatorError, match="cannot be written"):
        warehouse_from_url(service.url("nowhere")).load(some_rows(1), "t-1")


async def test_a_service_that_is_away_for_ten_minutes_is_waited_for(
    database: Database, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(1)
    connection = await database.connect()
    await init_export(database.dsn, "lake", service.url())
    await store(connection, [an_event(random) for _ in range(50)])
    await Exporter(database.dsn, "lake").run()
    await store(connection, [an_event(random) for _ in range(50)])
    service.stop()
    with pytest.raises(TransientError, match="cannot be written"):
        warehouse_from_url(service.url()).prepare(SCHEMA)
    clock = Clock(monkeypatch)
    monkeypatch.setattr(
        "asgi_analytics.exports.exporter.FIRST_BACKOFF", 200.0
    )  # its client tries for seconds by itself
    clock.at(600, service.start)
    assert (await Exporter(database.dsn, "lake").run(patience=1200)).events == 50
    assert clock.now >= 600
    assert ids(service.rows()) == await all_ids(connection)
