"""Parquet files in a bucket: pyarrow's real client against moto."""

from __future__ import annotations

import io
from typing import Any

import pytest

from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.exports import warehouse_from_url
from asgi_analytics.exports.base import SCHEMA
from tests.exports.contract import WarehouseContract, some_rows

pytest.importorskip("pyarrow")


class TestBucket(WarehouseContract):
    @pytest.fixture
    def warehouse(self, bucket: Any, bucket_service: str) -> Any:
        self.client = bucket
        return warehouse_from_url(f"s3://lake/a/b?region=us-east-1&endpoint_override={bucket_service}")

    def read(self, warehouse: Any) -> list[dict[str, Any]]:
        from pyarrow import parquet

        rows: list[dict[str, Any]] = []
        for found in self.client.list_objects_v2(Bucket="lake").get("Contents", []):
            assert found["Key"].startswith("a/b/platform_events/day=2026-")
            content = self.client.get_object(Bucket="lake", Key=found["Key"])["Body"].read()
            rows += parquet.read_table(io.BytesIO(content), partitioning=None).to_pylist()
        return rows


def test_a_bucket_that_is_not_there_is_the_operators(bucket: Any, bucket_service: str) -> None:
    warehouse = warehouse_from_url(f"s3://nowhere/a?region=us-east-1&endpoint_override={bucket_service}")
    with pytest.raises(OperatorError, match="cannot be written"):
        warehouse.load(some_rows(1), "t-1")


def test_a_service_that_is_away_is_waited_for(bucket: Any) -> None:
    warehouse = warehouse_from_url("s3://lake/a?region=us-east-1&endpoint_override=http://127.0.0.1:1")
    with pytest.raises(TransientError):
        warehouse.prepare(SCHEMA)


def test_a_parameter_that_is_not_known_is_the_operators(bucket: Any) -> None:
    with pytest.raises(OperatorError, match="colour"):
        warehouse_from_url("s3://lake/a?region=us-east-1&colour=red").prepare(SCHEMA)
