"""BigQuery: the real google-cloud-bigquery against the emulator local-bigquery.

The emulator needs Python 3.13 and DuckDB 1.5 with three of its extensions, so it has an environment of its own:
``ASGI_ANALYTICS_TEST_LOCAL_BIGQUERY`` names its Python. CONTRIBUTING.md says how to make it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, ClassVar

import pytest

from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.base import SCHEMA, Refused
from asgi_analytics.exports.bigquery import _lines
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.setup import init_export
from tests.exports.contract import WarehouseContract, some_rows
from tests.exports.stored import all_ids, an_event, store
from tests.kit.databases import Database, free_port

bigquery = pytest.importorskip("google.cloud.bigquery")

EMULATOR = "ASGI_ANALYTICS_TEST_LOCAL_BIGQUERY"
SERVE = """
import sys
import duckdb_extensions
for name in ("icu", "ducklake", "spatial"):
    duckdb_extensions.import_extension(name)
from local_bigquery.cli import main
sys.argv = ["local-bigquery", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    python = os.environ.get(EMULATOR)
    if not python:
        pytest.skip(f"no emulator of BigQuery: {EMULATOR} names the Python that has local-bigquery")
    folder = tmp_path_factory.mktemp("bigquery")
    ports = free_port(), free_port()
    log = folder / "log"
    handle = os.open(log, os.O_WRONLY | os.O_CREAT)
    process = subprocess.Popen(
        [python, "-c", SERVE, "--host", "127.0.0.1", "--port", str(ports[0]), "--grpc-port", str(ports[1]),
         "--project", "shop", "--dataset", "stats", "--data-dir", str(folder / "data"), "serve"],
        stdout=handle, stderr=handle,
    )  # fmt: skip
    os.close(handle)
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ports[0])) == 0:
                break
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"http://127.0.0.1:{ports[0]}"
    process.kill()
    process.wait()


@pytest.fixture
def client(emulator: str) -> Iterator[Any]:
    from google.auth.credentials import AnonymousCredentials

    anonymous: Any = AnonymousCredentials
    client = bigquery.Client("shop", credentials=anonymous(), client_options={"api_endpoint": emulator})
    client.create_dataset("stats", exists_ok=True)
    yield client
    client.delete_table("shop.stats.platform_events", not_found_ok=True)
    client.close()


class TestBigQuery(WarehouseContract):
    loses_nulls = True

    @pytest.fixture
    def warehouse(self, client: Any, emulator: str) -> Iterator[Any]:
        self.client = client
        # Ids of jobs are remembered by the emulator, as by the real one.
        warehouse: Any = warehouse_from_url(f"bigquery://shop/stats?endpoint={emulator}")
        load, mark = warehouse.load, os.urandom(4).hex()
        warehouse.load = lambda batch, token: load(batch, f"{mark}-{token}")
        yield warehouse
        warehouse.close()

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        names = ", ".join(
            f"TO_JSON_STRING({one.name}) AS {one.name}" if one.kind == "json" else one.name for one in SCHEMA
        )
        rows = [dict(row) for row in self.client.query(f"SELECT {names} FROM `shop.stats.platform_events`").result()]
        for row in rows:
            row["timestamp"], row["ingested_at"] = (row[name].astimezone(UTC) for name in ("timestamp", "ingested_at"))
        return rows

    def test_what_it_refuses_costs_the_batch_and_nothing_else(self, warehouse: Any) -> None:
        warehouse.prepare(SCHEMA)
        rows = some_rows(3)
        with pytest.raises(Refused) as caught:
            warehouse.load([*rows[:2], (*rows[2][:5], "many", *rows[2][6:])], "t-1")
        assert "many" not in str(caught.value)
        # The id of the job that failed is used up: the next attempt has another one.
        warehouse.load(rows[:2], "t-1")
        warehouse.load(rows[:2], "t-1")
        self.same(warehouse, rows[:2])


async def test_an_export_through_lost_answers(
    database: Database, client: Any, emulator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(1)
    connection = await database.connect()
    await init_export(database.dsn, "warehouse", f"bigquery://shop/stats?endpoint={emulator}")
    warehouse: Any = warehouse_from_url(f"bigquery://shop/stats?endpoint={emulator}")
    load, left = warehouse.load, [True] * 3

    def lose(batch: Any, token: str) -> None:
        load(batch, token)
        if left and left.pop():
            raise TransientError("the answer was lost")

    warehouse.load = lose
    for _ in range(3):
        await store(connection, [an_event(random) for _ in range(20)])
        await Exporter(database.dsn, "warehouse", warehouse=warehouse).run(patience=20)
    found = client.query("SELECT event_id FROM `shop.stats.platform_events`").result()
    assert sorted(row["event_id"] for row in found) == await all_ids(connection)


def test_json_columns_are_objects_and_times_are_texts() -> None:
    [row] = some_rows(1)
    line = json.loads(_lines([row]))
    assert line["event_data"] == json.loads(row[8])
    assert line["timestamp"] == row[11].isoformat().replace("+00:00", "Z")
    assert line["device_info"] is None


def test_who_is_away_or_has_no_dataset_is_told(emulator: str, client: Any) -> None:
    with pytest.raises(OperatorError, match="404"):
        warehouse_from_url(f"bigquery://shop/nothing?endpoint={emulator}").load(some_rows(1), "t-away-1")


class Limiting(BaseHTTPRequestHandler):
    """Answers each request as a service does that has had enough."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path.partition("?")[0])
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"error": {"code": 429, "message": "hunter2", "errors": [{"reason": "rateLimitExceeded"}]}})
        self.send_response(429)
        self.send_header("Retry-After", "7")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_429_is_told_with_how_long_it_asks_to_wait_and_who_is_away_at_once() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Limiting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        warehouse = warehouse_from_url(f"bigquery://shop/stats?endpoint=http://127.0.0.1:{server.server_port}")
        calls: list[Callable[[], Any]] = [lambda: warehouse.load(some_rows(3), "t"), lambda: warehouse.prepare(SCHEMA)]
        for call in calls:
            Limiting.asked.clear()
            with pytest.raises(TransientError, match="429 rateLimitExceeded") as caught:
                call()
            assert caught.value.retry_after == 7
            assert "hunter2" not in str(caught.value)
            assert len(Limiting.asked) == 1, "the exporter waits, not the client"
        server.shutdown()
    for call in calls:
        with pytest.raises(TransientError, match="does not answer"):
            call()
    warehouse.close()


@pytest.mark.parametrize("url", ["bigquery://shop", "bigquery://user:hunter2@shop/stats", "bigquery://shop/a/b"])
def test_a_wrong_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="project/dataset") as caught:
        warehouse_from_url(url)
    assert "hunter2" not in str(caught.value)
