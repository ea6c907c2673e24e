"""Parquet files by day: in a folder, in a bucket of S3 or what speaks its protocol, or in Google Cloud Storage."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from asgi_analytics.errors import ConfigError, MissingExtra, OperatorError, SinkError, TransientError
from asgi_analytics.exports.base import SCHEMA, TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_analytics.exports.base import Row, Schema

LEFT_SECONDS = 3600.0
"""A temporary file of so long ago was left by a process that was ended; a younger one may be another export's."""
OPERATORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
REFUSING = ("ACCESS_DENIED", "AccessDenied", "NO_SUCH_BUCKET", "NoSuchBucket", "INVALID_ACCESS_KEY", "InvalidAccessKey",
            "SIGNATURE_DOES_NOT_MATCH", "SignatureDoesNotMatch", "PERMISSION_DENIED", "UNAUTHENTICATED")  # fmt: skip


class Store(Protocol):
    """Where files are. Names are relative and have slashes."""

    def prepare(self) -> None:
        """Make the folder, where there are any."""

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole, or not at all; over the one of that name."""

    def get(self, name: str) -> bytes:
        """Return a file."""

    def names(self) -> Iterator[str]:
        """Yield the names of all Parquet files."""

    def remove(self, name: str) -> None:
        """Delete a file."""


class Folder:
    """A folder of this machine, or of a network disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the folder, and remove what a process that was ended has left."""
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob("day=*/.*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                    left.unlink()

    def put(self, name: str, content: bytes) -> None:
        """Write it beside, then rename it: a reader sees all of it or nothing, a power cut too."""
        target = self.path / name
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            _sync(target.parent.parent)
        beside = target.parent / f".{secrets.token_hex(8)}.tmp"
        try:
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync(target.parent)

    def get(self, name: str) -> bytes:
        """Read it."""
        return (self.path / name).read_bytes()

    def names(self) -> Iterator[str]:
        """Yield names by day."""
        for path in sorted(self.path.glob("day=*/*.parquet")):
            if not path.name.startswith("."):
                yield path.relative_to(self.path).as_posix()

    def remove(self, name: str) -> None:
        """Delete it."""
        (self.path / name).unlink(missing_ok=True)
        _sync((self.path / name).parent)


class Bucket:
    """A prefix of a bucket. One request puts a whole object, or none."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._opened: tuple[Any, str] | None = None

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            from pyarrow import fs

            try:
                self._opened = fs.FileSystem.from_uri(self._uri)
            except ValueError as error:
                raise OperatorError(f"the URL of the bucket cannot be used: {str(error)[:300]}") from None
        return self._opened

    def prepare(self) -> None:
        """See that the bucket answers."""
        from pyarrow import fs

        system, path = self._open()
        system.get_file_info(fs.FileSelector(path, allow_not_found=True))

    def put(self, name: str, content: bytes) -> None:
        """Put it, and see that it is there whole."""
        system, path = self._open()
        with system.open_output_stream(f"{path}/{name}") as stream:
            stream.write(content)
        [info] = system.get_file_info([f"{path}/{name}"])
        if info.size != len(content):
            raise TransientError(f"the bucket has {info.size} of {len(content)} bytes of a file")

    def get(self, name: str) -> bytes:
        """Read it."""
        system, path = self._open()
        with system.open_input_stream(f"{path}/{name}") as stream:
            return bytes(stream.read())

    def names(self) -> Iterator[str]:
        """Yield the names of the Parquet files."""
        from pyarrow import fs

        system, path = self._open()
        for info in system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True)):
            if info.path.endswith(".parquet"):
                yield info.path.removeprefix(f"{path}/")

    def remove(self, name: str) -> None:
        """Delete it."""
        system, path = self._open()
        system.delete_file(f"{path}/{name}")


class ParquetFiles:
    """Writes each batch as one Parquet file for each day that it has, under the name of its token.

    A batch that comes again is written over itself, so that it is there once.
    """

    schemes: ClassVar[tuple[str, ...]] = ("file", "s3", "gs")
    max_rows: ClassVar[int] = 20_000

    def __init__(self, store: Store) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise MissingExtra("pyarrow", "parquet") from None
        self._arrow: Any = pyarrow
        self._parquet: Any = pyarrow.parquet
        self._store = store
        types = {
            "text": pyarrow.string(),
            "json": pyarrow.string(),
            "integer": pyarrow.int32(),
            "timestamp": pyarrow.timestamp("us", tz="UTC"),
        }
        self._schema = pyarrow.schema(
            [pyarrow.field(column.name, types[column.kind], nullable=not column.is_required) for column in SCHEMA]
        )

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the warehouse of ``file:///folder``, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.

        For s3 the parameters ``region``, ``endpoint_override`` (``http://host:port`` too) and those of pyarrow.
        """
        parts = urlsplit(url)
        if parts.scheme.lower() == "file":
            if parts.netloc not in ("", "localhost") or parts.path in ("", "/"):
                raise ConfigError("the URL of a folder is file:///path, with three slashes")
            return cls(Folder(Path(unquote(parts.path)) / TABLE))
        if not parts.netloc:
            raise ConfigError(f"the URL of a bucket is {parts.scheme}://bucket/prefix")
        query = dict(parse_qsl(parts.query))
        endpoint = query.get("endpoint_override", "")
        if "://" in endpoint:
            query["scheme"], _, query["endpoint_override"] = endpoint.partition("://")
        path = "/".join(part for part in (parts.path.strip("/"), TABLE) if part)
        return cls(Bucket(f"{parts.scheme.lower()}://{parts.netloc}/{path}?{urlencode(query)}".rstrip("?")))

    def prepare(self, schema: Schema) -> None:
        """Make the folder; files bring their columns with them."""
        with _telling():
            self._store.prepare()

    def load(self, batch: Sequence[Row], token: str) -> None:
        """Write the files of a batch."""
        with _telling():
            for day, table in self._days(self._table(batch)):
                self._store.put(f"day={day}/{token}.parquet", self._bytes(table))

    def erase(self, user_ids: Sequence[str]) -> int:
        """Rewrite the files that have rows of these users."""
        erased = 0
        wanted = self._arrow.array(list(user_ids), self._arrow.string())
        compute: Any = self._compute()
        with _telling():
            for name in self._store.names():
                content = self._arrow.BufferReader(self._store.get(name))
                users = self._parquet.read_table(content, columns=["user_id"], partitioning=None)["user_id"]
                is_erased = compute.is_in(users, value_set=wanted)
                number = int(compute.sum(is_erased).as_py() or 0)
                if not number:
                    continue
                content.seek(0)
                table = self._parquet.read_table(content, partitioning=None)
                left = table.filter(compute.invert(is_erased))
                if left.num_rows:
                    self._store.put(name, self._bytes(left))
                else:
                    self._store.remove(name)
                erased += number
        return erased

    def close(self) -> None:
        """Close nothing: no file stays open."""

    def _compute(self) -> Any:
        import pyarrow.compute

        return pyarrow.compute

    def _table(self, rows: Sequence[Row]) -> Any:
        """Return rows as columns."""
        arrays = []
        for values, field in zip(zip(*rows, strict=True), self._schema, strict=True):
            if values.count(values[0]) == len(values):  # such as when they were read: a time costs more than a text
                arrays.append(self._arrow.repeat(self._arrow.scalar(values[0], field.type), len(values)))
            else:
                arrays.append(self._arrow.array(values, field.type))
        return self._arrow.Table.from_arrays(arrays, schema=self._schema)

    def _days(self, table: Any) -> Iterator[tuple[str, Any]]:
        """Yield the rows of each day."""
        compute = self._compute()
        days = compute.cast(table["timestamp"], self._arrow.date32(), safe=False)
        different = compute.unique(days)
        for day in sorted(different.to_pylist()):
            yield day.isoformat(), table if len(different) == 1 else table.filter(compute.equal(days, day))

    def _bytes(self, table: Any) -> bytes:
        target = io.BytesIO()
        # Ids are all different: a dictionary of them would only be thrown away.
        names = [name for name in self._schema.names if name not in ("event_id", "event_data", "timestamp")]
        self._parquet.write_table(table, target, compression="zstd", use_dictionary=names)
        return target.getvalue()


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Turn errors of the system into ours."""
    try:
        yield
    except SinkError:
        raise
    except OSError as error:
        text = " ".join((error.strerror or str(error)).split())[:500]
        if error.errno in OPERATORS or any(word in text for word in REFUSING):
            raise OperatorError(f"the files cannot be written: {text}") from error
        raise TransientError(f"the files cannot be written: {text}") from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
