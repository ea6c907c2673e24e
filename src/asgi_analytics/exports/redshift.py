"""Amazon Redshift: lines of JSON in a bucket, and COPY, in one transaction with the token of the batch."""

from __future__ import annotations

import contextlib
import gzip
import json
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from asgi_analytics.errors import ConfigError, MissingExtra, OperatorError, SinkError, TransientError
from asgi_analytics.exports.base import SCHEMA, TABLE, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_analytics.exports.base import Row, Schema

LOADS = "asgi_analytics_loads"
LONGEST = 65_535
"""Bytes of a VARCHAR."""
TYPES = {"text": "VARCHAR(65535)", "json": "SUPER", "integer": "INTEGER", "timestamp": "TIMESTAMPTZ"}
STAGED = {**TYPES, "json": "VARCHAR(65535)"}
STATEMENT_MS = 600_000
PORT = 5439
TRANSIENT = ("57", "53", "08", "40", "55")
"""Classes of SQLSTATE that pass: shut down, out of resources, lost, serialisation, in use."""


class Place(NamedTuple):
    """What a URL says."""

    host: str
    port: int
    database: str
    user: str
    password: str
    bucket: str
    prefix: str
    options: dict[str, str]


class Redshift:
    """Stages each batch in S3, copies it to a temporary table, and inserts it with its token in one transaction.

    Keys of Redshift are not enforced, so the table of the tokens is locked before it is looked into.
    """

    schemes: ClassVar[tuple[str, ...]] = ("redshift",)
    max_rows: ClassVar[int] = 50_000

    def __init__(self, place: Place) -> None:
        try:
            import boto3
            import redshift_connector
        except ImportError as error:
            raise MissingExtra(error.name or "redshift_connector", "redshift") from None
        self._boto3: Any = boto3
        self._driver: Any = redshift_connector
        self._place = place

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the warehouse of ``redshift://user:password@host:5439/database?stage=s3://bucket/prefix``.

        ``iam_role`` is the role by which Redshift reads the bucket (the default role of the cluster), ``region`` that
        of the bucket, ``schema`` that of the tables, ``stage_endpoint`` another service that speaks S3, ``ssl=false``
        leaves TLS out. Without a password the credentials of AWS are used (``cluster`` or ``workgroup`` names it).
        """
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        stage = urlsplit(options.get("stage", ""))
        database = unquote(parts.path.strip("/"))
        try:
            port = parts.port or PORT
        except ValueError:
            raise ConfigError("the URL of Redshift has a port that cannot be read") from None
        if not (parts.hostname and database) or stage.scheme != "s3" or not stage.netloc:
            raise ConfigError("the URL of Redshift is redshift://user@host/database?stage=s3://bucket/prefix")
        return cls(
            Place(
                parts.hostname, port, database, unquote(parts.username or ""), unquote(parts.password or ""),
                stage.netloc, stage.path.strip("/"), options,
            )
        )  # fmt: skip

    def prepare(self, schema: Schema) -> None:
        """Make the tables, and add columns that are missing."""
        with self._cursor() as cursor:
            columns = ", ".join(
                f"{one.name} {TYPES[one.kind]}{' NOT NULL' if one.is_required else ''}" for one in schema
            )
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {TABLE} ({columns}) DISTKEY (user_id) SORTKEY (timestamp, event_type)"
            )
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {LOADS} (token VARCHAR(300) NOT NULL, loaded_at TIMESTAMPTZ NOT NULL)"
            )
            cursor.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s"
                " AND table_schema = current_schema()",
                (TABLE,),
            )
            known = {row[0] for row in cursor.fetchall()}
            for column in schema:
                if column.name not in known:
                    cursor.execute(f"ALTER TABLE {TABLE} ADD COLUMN {column.name} {TYPES[column.kind]}")

    def load(self, batch: Sequence[Row], token: str) -> None:
        """Store a batch, unless its token is there. Values of more than 65,535 bytes are refused."""
        too_long = [place for place, row in enumerate(batch) if any(_is_too_long(value) for value in row)]
        if too_long:
            raise Refused("a value is longer than the 65,535 bytes of a VARCHAR", too_long)
        name = "/".join(part for part in (self._place.prefix, f"{token}.json.gz") if part)
        with self._stage(name, _lines(batch)), self._cursor() as cursor:
            cursor.execute(f"LOCK TABLE {LOADS}")
            cursor.execute(f"SELECT 1 FROM {LOADS} WHERE token = %s", (token,))  # noqa: S608  # a constant
            if cursor.fetchall():
                return
            columns = ", ".join(f"{one.name} {STAGED[one.kind]}" for one in SCHEMA)
            cursor.execute(f"CREATE TEMP TABLE asgi_analytics_stage ({columns})")
            cursor.execute(self._copy(name))
            names = ", ".join(one.name for one in SCHEMA)
            values = ", ".join(f"JSON_PARSE({one.name})" if one.kind == "json" else one.name for one in SCHEMA)
            cursor.execute(f"INSERT INTO {TABLE} ({names}) SELECT {values} FROM asgi_analytics_stage")  # noqa: S608
            cursor.execute(f"INSERT INTO {LOADS} (token, loaded_at) VALUES (%s, GETDATE())", (token,))  # noqa: S608

    def erase(self, user_ids: Sequence[str]) -> int:
        """Delete the rows of these users."""
        with self._cursor() as cursor:
            cursor.execute(f"LOCK TABLE {LOADS}")
            marks = ", ".join(["%s"] * len(user_ids))
            cursor.execute(f"DELETE FROM {TABLE} WHERE user_id IN ({marks})", tuple(user_ids))  # noqa: S608  # marks
            return max(int(cursor.rowcount), 0)

    def close(self) -> None:
        """Close nothing: a connection that stayed open would keep the lock."""

    def _copy(self, name: str) -> str:
        options = self._place.options
        role = f"'{_literal(options['iam_role'])}'" if "iam_role" in options else "default"
        region = f" REGION '{_literal(options['region'])}'" if "region" in options else ""
        return (
            f"COPY asgi_analytics_stage FROM 's3://{_literal(self._place.bucket)}/{_literal(name)}' IAM_ROLE {role}"
            f" FORMAT AS JSON 'auto' GZIP TIMEFORMAT 'auto'{region}"
        )

    @contextlib.contextmanager
    def _stage(self, name: str, content: bytes) -> Iterator[None]:
        """Have a file in the bucket inside the block."""
        from botocore.exceptions import BotoCoreError, ClientError

        options = self._place.options
        client = self._boto3.client("s3", region_name=options.get("region"), endpoint_url=options.get("stage_endpoint"))
        try:
            client.put_object(Bucket=self._place.bucket, Key=name, Body=content)
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout", "Throttling"):
                raise TransientError(f"the bucket of the stage does not answer: {code}") from error
            raise OperatorError(f"the bucket of the stage refuses: {code}") from error
        except BotoCoreError as error:
            kind = type(error).__name__
            if "Credential" in kind or "Param" in kind or "Region" in kind:
                raise OperatorError(f"the bucket of the stage cannot be used: {kind}") from error
            raise TransientError(f"the bucket of the stage does not answer: {kind}") from error
        finally:
            with contextlib.suppress(Exception):
                client.delete_object(Bucket=self._place.bucket, Key=name)

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        """Give a cursor in a transaction of its own, and turn errors into ours: nothing is stored then."""
        place = self._place
        settings: dict[str, Any] = {"host": place.host, "port": place.port, "database": place.database, "timeout": 30}
        if place.password:
            settings |= {"user": place.user, "password": place.password}
        else:
            settings |= {"iam": True, "db_user": place.user or None}
            settings |= {"cluster_identifier": place.options.get("cluster"), "region": place.options.get("region")}
            if "workgroup" in place.options:
                settings |= {"serverless_work_group": place.options["workgroup"]}
        settings["ssl"] = place.options.get("ssl", "true") != "false"
        try:
            connection = self._driver.connect(**settings)
            try:
                # The lock and the connection end with the block, whatever happens in it.
                connection.autocommit = False
                cursor = connection.cursor()
                cursor.execute(f"SET statement_timeout TO {STATEMENT_MS}")
                if "schema" in place.options:
                    quoted = place.options["schema"].replace('"', '""')
                    cursor.execute(f'SET search_path TO "{quoted}"')
                yield cursor
                connection.commit()
            finally:
                connection.close()
        except (SinkError, Refused):
            raise
        except (self._driver.Error, OSError) as error:
            raise _explained(error) from None


def _explained(error: BaseException) -> Exception:
    """Return what an error of the driver means; its text is not told, because it may quote a row."""
    fields = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    code, said = str(fields.get("C", "")), str(fields.get("M", ""))
    if "1023" in said or code[:2] in TRANSIENT:
        return TransientError(f"Redshift is busy or goes away ({code})")
    if code[:2] == "22" or "stl_load_errors" in said or "sys_load_error_detail" in said or "JSON" in said:
        return Refused(f"Redshift refuses a value ({code})")
    if code[:2] == "28":
        return OperatorError(f"Redshift refuses the user ({code})")
    if code:
        return OperatorError(f"Redshift refuses a statement ({code})")
    return TransientError(f"Redshift does not answer ({type(error).__name__})")


def _lines(batch: Sequence[Row]) -> bytes:
    names = [column.name for column in SCHEMA]
    moments = [place for place, column in enumerate(SCHEMA) if column.kind == "timestamp"]
    lines = []
    for row in batch:
        values = list(row)
        for place in moments:
            values[place] = row[place].isoformat()
        lines.append(json.dumps(dict(zip(names, values, strict=True)), ensure_ascii=False))
    return gzip.compress("\n".join(lines).encode(), compresslevel=3)


def _is_too_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) * 4 > LONGEST and len(value.encode()) > LONGEST


def _literal(text: str) -> str:
    return text.replace("'", "''")
