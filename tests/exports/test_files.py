"""Parquet files in a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.base import SCHEMA
from tests.exports.contract import USER, WarehouseContract, some_rows
from tests.exports.stored import ids, read

pytest.importorskip("pyarrow")


class TestFolder(WarehouseContract):
    @pytest.fixture
    def warehouse(self, tmp_path: Path) -> Any:
        self.folder = tmp_path / "a b"
        return warehouse_from_url(self.folder.as_uri())

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        return read(self.folder)

    def test_duckdb_reads_the_files_with_their_days(self, warehouse: Any) -> None:
        duckdb = pytest.importorskip("duckdb")
        rows = some_rows(50)
        warehouse.prepare(SCHEMA)
        warehouse.load(rows, "t-1")
        found = duckdb.connect().execute(
            "SELECT event_id, day::text, event_data->>'place', epoch_us(timestamp) FROM "
            f"read_parquet('{self.folder}/platform_events/*/*.parquet', hive_partitioning = true)"
        )
        places = [row[:3] for row in found.fetchall()]
        assert sorted(places) == sorted((row[0], f"{row[11]:%Y-%m-%d}", str(place)) for place, row in enumerate(rows))

    def test_a_day_that_duckdb_has_compacted_has_its_rows_and_can_be_erased_from(self, warehouse: Any) -> None:
        duckdb = pytest.importorskip("duckdb")
        rows = some_rows(200)
        for place in range(0, 200, 20):
            warehouse.load(rows[place : place + 20], f"t-{place}")
        for day in (self.folder / "platform_events").iterdir():
            small = list(day.glob("*.parquet"))
            assert len(small) > 5
            duckdb.connect().execute(  # as docs/how-to/export-to-parquet.md says
                f"COPY (SELECT * FROM read_parquet('{day}/*.parquet', hive_partitioning = false))"
                f" TO '{day}/.compact.tmp' (FORMAT parquet, COMPRESSION zstd)"
            )
            for path in small:
                path.unlink()
            os.rename(day / ".compact.tmp", day / "compact.parquet")
        self.same(warehouse, rows)
        assert warehouse.erase([USER]) > 0
        self.same(warehouse, [row for row in rows if row[3] != USER])
        warehouse.load(some_rows(20, 2), "t-new")
        self.same(warehouse, [*(row for row in rows if row[3] != USER), *some_rows(20, 2)])

    def test_a_kill_while_a_file_is_written_leaves_nothing_to_be_read(
        self, warehouse: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = some_rows(20)
        warehouse.prepare(SCHEMA)
        renamed: list[Any] = []

        def replace(*paths: Any) -> None:
            if renamed:
                raise KeyboardInterrupt
            renamed.append(paths)
            real(*paths)

        real = os.replace
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            warehouse.load(rows, "t-1")
        monkeypatch.undo()
        left = self.folder / "platform_events" / "day=2026-11-28" / ".0123.tmp"
        left.write_bytes(b"half")
        warehouse.prepare(SCHEMA)
        assert left.exists(), "it may be another export's"
        os.utime(left, (0, 0))
        assert 0 < len(ids(read(self.folder))) < 20
        warehouse.prepare(SCHEMA)
        assert not left.exists()
        warehouse.load(rows, "t-1")
        self.same(warehouse, rows)

    @pytest.mark.parametrize(
        ("code", "kind"), [(errno.ENOSPC, TransientError), (errno.EIO, TransientError), (errno.EACCES, OperatorError)]
    )
    def test_errors_of_the_system_are_waited_for_or_told(
        self, warehouse: Any, code: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        warehouse.prepare(SCHEMA)
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(kind, match="cannot be written"):
            warehouse.load(some_rows(3), "t-1")
        monkeypatch.undo()
        assert not list(self.folder.rglob("*.tmp"))
        warehouse.load(some_rows(3), "t-1")
        self.same(warehouse, some_rows(3))

    def test_erasing_leaves_the_files_of_others_as_they_are(self, warehouse: Any) -> None:
        warehouse.prepare(SCHEMA)
        warehouse.load([row for row in some_rows(40) if row[3] != USER], "t-1")
        before = {path: path.stat().st_ino for path in self.folder.rglob("*.parquet")}
        warehouse.load([row for row in some_rows(40, 2) if row[3] == USER], "t-2")
        assert warehouse.erase([USER]) > 0
        assert {path: path.stat().st_ino for path in self.folder.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://host/folder", "three slashes"),
        ("file:///", "three slashes"),
        ("s3:///prefix", "s3://bucket/prefix"),
        ("nothing", "one of bigquery://|one of duckdb://"),
        ("ftp://user:hunter2@host/x", "begin with one of"),
    ],
)
def test_a_wrong_url_is_refused_without_being_quoted(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        warehouse_from_url(url)
    assert "hunter2" not in str(caught.value)
