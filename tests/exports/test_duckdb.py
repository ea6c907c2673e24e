"""The file of DuckDB."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.base import SCHEMA, Refused
from tests.exports.contract import WarehouseContract, some_rows

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")


class TestDuckDbFile(WarehouseContract):
    @pytest.fixture
    def warehouse(self, tmp_path: Path) -> Any:
        self.path = tmp_path / "a b.duckdb"
        return warehouse_from_url(f"duckdb://{tmp_path}/a%20b.duckdb")

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            columns = ", ".join(
                f"epoch_us({column.name})" if column.kind == "timestamp" else column.name for column in SCHEMA
            )
            found = connection.execute(f"SELECT {columns} FROM platform_events").fetchall()
        rows = []
        for row in found:
            one = dict(zip([column.name for column in SCHEMA], row, strict=True))
            for name in ("timestamp", "ingested_at"):
                one[name] = moment(one[name])
            rows.append(one)
        return rows

    def test_a_value_that_it_refuses_costs_the_batch_and_nothing_else(self, warehouse: Any) -> None:
        warehouse.prepare(SCHEMA)
        rows = some_rows(3)
        bad = [*rows[:2], (*rows[2][:8], "{not json", *rows[2][9:])]
        with pytest.raises(Refused) as caught:
            warehouse.load(bad, "t-1")
        assert "not json" not in str(caught.value)
        warehouse.load(rows[:2], "t-2")
        self.same(warehouse, rows[:2])

    def test_a_file_that_another_process_has_open_is_waited_for(self, warehouse: Any) -> None:
        warehouse.prepare(SCHEMA)
        code = (
            f"import duckdb, sys; c = duckdb.connect({str(self.path)!r}); print('open', flush=True); sys.stdin.read()"
        )
        other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(TransientError, match="another process"):
            warehouse.load(some_rows(1), "t-1")
        other.communicate(b"\n")
        warehouse.load(some_rows(1), "t-1")

    def test_what_is_no_file_of_it_is_the_operators(self, warehouse: Any) -> None:
        self.path.write_bytes(b"not a database" * 1000)
        with pytest.raises(OperatorError, match="DuckDB"):
            warehouse.prepare(SCHEMA)


@pytest.mark.parametrize("url", ["duckdb://host/file", "duckdb:///", "duckdb:///folder/"])
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="duckdb:///path"):
        warehouse_from_url(url)


def moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
