"""A database file of DuckDB, for a notebook. One process at a time may have it open, so it is open in a call only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import unquote, urlsplit

from asgi_analytics.errors import ConfigError, MissingExtra, OperatorError, SinkError, TransientError
from asgi_analytics.exports.base import SCHEMA, TABLE, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_analytics.exports.base import Row, Schema

TYPES = {"text": "VARCHAR", "json": "JSON", "integer": "INTEGER", "timestamp": "TIMESTAMPTZ"}
LOADS = "asgi_analytics_loads"
"""The table of the tokens of all batches that are stored."""


class DuckDbFile:
    """Stores each batch in one transaction, together with its token."""

    schemes: ClassVar[tuple[str, ...]] = ("duckdb",)
    max_rows: ClassVar[int] = 50_000

    def __init__(self, path: str) -> None:
        try:
            import duckdb
            import pyarrow
        except ImportError as error:
            raise MissingExtra(error.name or "duckdb", "duckdb") from None
        self._duckdb: Any = duckdb
        self._arrow: Any = pyarrow
        self._path = path
        types = {"integer": pyarrow.int32(), "timestamp": pyarrow.timestamp("us", tz="UTC")}
        self._schema = pyarrow.schema(
            [pyarrow.field(column.name, types.get(column.kind, pyarrow.string())) for column in SCHEMA]
        )

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the warehouse of ``duckdb:///file``."""
        parts = urlsplit(url)
        if parts.netloc or parts.path in ("", "/") or parts.path.endswith("/"):
            raise ConfigError("the URL of a DuckDB file is duckdb:///path/file.duckdb, with three slashes")
        return cls(unquote(parts.path))

    def prepare(self, schema: Schema) -> None:
        """Make the table and that of the tokens, and add columns that are missing."""
        with self._transaction() as connection:
            columns = ", ".join(
                f"{column.name} {TYPES[column.kind]}{' NOT NULL' if column.is_required else ''}" for column in schema
            )
            connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns})")
            for column in schema:
                connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS {column.name} {TYPES[column.kind]}")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {LOADS} (token VARCHAR PRIMARY KEY, loaded_at TIMESTAMPTZ DEFAULT now())"
            )

    def load(self, batch: Sequence[Row], token: str) -> None:
        """Store a batch, unless its token is there."""
        names = ", ".join(self._schema.names)
        columns = zip(*batch, strict=True)
        arrays = [self._arrow.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)]
        with self._transaction() as connection:
            if connection.execute(f"SELECT 1 FROM {LOADS} WHERE token = ?", [token]).fetchall():  # noqa: S608  # a constant
                return
            connection.register("batch", self._arrow.Table.from_arrays(arrays, schema=self._schema))
            connection.execute(f"INSERT INTO {TABLE} ({names}) SELECT {names} FROM batch")  # noqa: S608  # constants
            connection.execute(f"INSERT INTO {LOADS} (token) VALUES (?)", [token])  # noqa: S608  # a constant
            connection.unregister("batch")

    def erase(self, user_ids: Sequence[str]) -> int:
        """Delete the rows of these users, and write the file anew where they were."""
        with self._transaction() as connection:
            found = connection.execute(
                f"DELETE FROM {TABLE} WHERE user_id IN (SELECT unnest(?::VARCHAR[]))",  # noqa: S608  # a constant
                [list(user_ids)],
            ).fetchall()
        with self._open() as connection:
            connection.execute("CHECKPOINT")
        return int(found[0][0])

    def close(self) -> None:
        """Close nothing: the file is open during a call only."""

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._open() as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        """Open the file, and turn errors into ours: what is not committed then is rolled back."""
        try:
            connection = self._duckdb.connect(self._path)
            try:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
            finally:
                connection.close()
        except SinkError:
            raise
        except (self._duckdb.ConversionException, self._duckdb.ConstraintException, self._duckdb.InvalidInputException):
            raise Refused("DuckDB refuses a value") from None
        except self._duckdb.IOException as error:
            text = str(error)
            if "lock" in text.lower():
                raise TransientError("another process has the DuckDB file open") from None
            if "No space" in text:
                raise TransientError("no space is left for the DuckDB file") from None
            raise OperatorError(f"the DuckDB file cannot be opened or written: {_first_line(text)}") from None
        except self._duckdb.Error as error:
            raise OperatorError(f"DuckDB: {type(error).__name__}: {_first_line(str(error))}") from None


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0][:300]
