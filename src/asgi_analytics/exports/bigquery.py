"""Google BigQuery, by load jobs: each is done once by its id, costs nothing, and its rows can be deleted at once."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

import msgspec

from asgi_analytics.errors import ConfigError, MissingExtra, OperatorError, SinkError, TransientError
from asgi_analytics.exports.base import SCHEMA, TABLE, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgi_analytics.exports.base import Row, Schema

TYPES = {"text": "STRING", "json": "JSON", "integer": "INTEGER", "timestamp": "TIMESTAMP"}
JOB_SECONDS = 600.0
ATTEMPTS = 100
"""Jobs with the token of one batch: the id of one that failed is used up."""
QUOTA_SECONDS = 60.0
LIMITS = (
    "rateLimitExceeded",
    "quotaExceeded",
    "jobRateLimitExceeded",
    "backendError",
    "internalError",
    "jobBackendError",
)
"""Reasons that pass, whatever the status."""


class BigQuery:
    """Loads each batch by one job, whose id is the token."""

    schemes: ClassVar[tuple[str, ...]] = ("bigquery",)
    max_rows: ClassVar[int] = 50_000

    def __init__(self, project: str, dataset: str, location: str | None, endpoint: str | None) -> None:
        try:
            from google.cloud import bigquery
        except ImportError:
            raise MissingExtra("google-cloud-bigquery", "bigquery") from None
        self._library: Any = bigquery
        self._project = project
        self._location = location
        self._endpoint = endpoint
        self._table = f"{project}.{dataset}.{TABLE}"
        self._opened: Any = None

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Return the warehouse of ``bigquery://project/dataset``.

        ``location`` is that of the dataset. ``endpoint`` is an emulator, which is asked without credentials.
        """
        parts = urlsplit(url)
        dataset = parts.path.strip("/")
        if not re.fullmatch(r"[A-Za-z0-9._:-]+", parts.netloc) or not re.fullmatch(r"\w+", dataset):
            raise ConfigError("the URL of BigQuery is bigquery://project/dataset, without a password")
        options = dict(parse_qsl(parts.query))
        return cls(parts.netloc, dataset, options.get("location"), options.get("endpoint"))

    def prepare(self, schema: Schema) -> None:
        """Make the table, by day and clustered, or add the columns that it lacks. The dataset has to be there."""
        library = self._library
        fields = [
            library.SchemaField(one.name, TYPES[one.kind], mode="REQUIRED" if one.is_required else "NULLABLE")
            for one in schema
        ]
        with self._client() as client:
            table = library.Table(self._table, schema=fields)
            table.time_partitioning = library.TimePartitioning(field="timestamp")
            table.clustering_fields = ["event_type", "user_id"]
            found = client.create_table(table, exists_ok=True, retry=None)  # the exporter waits, and may be ended
            known = {field.name for field in found.schema}
            missing = [
                library.SchemaField(one.name, TYPES[one.kind]) for one in schema if one.name not in known
            ]  # nullable: rows are there
            if missing:
                found.schema = [*found.schema, *missing]
                client.update_table(found, ["schema"], retry=None)

    def load(self, batch: Sequence[Row], token: str) -> None:
        """Load a batch, unless a job of its token has done it; wait for one that is doing it."""
        library = self._library
        content = _lines(batch)
        config = library.LoadJobConfig(
            source_format=library.SourceFormat.NEWLINE_DELIMITED_JSON,
            write_disposition=library.WriteDisposition.WRITE_APPEND,
            create_disposition=library.CreateDisposition.CREATE_NEVER,
        )
        with self._client() as client:
            for attempt in range(1, ATTEMPTS + 1):
                job, is_ours = self._job(client, content, f"{token}-{attempt}", config)
                try:
                    job.result(timeout=JOB_SECONDS)
                    return
                except self._exceptions().GoogleAPICallError as error:
                    if getattr(job, "state", None) != "DONE":
                        raise  # it was asked in vain, and may still be done
                    if is_ours:
                        raise self._explained(error, of_job=True) from None
        raise OperatorError(f"the {ATTEMPTS} jobs of a batch have failed: look at them in BigQuery")

    def erase(self, user_ids: Sequence[str]) -> int:
        """Delete the rows of these users."""
        library = self._library
        config = library.QueryJobConfig(
            query_parameters=[library.ArrayQueryParameter("users", "STRING", list(user_ids))], use_legacy_sql=False
        )
        with self._client() as client:
            sql = f"DELETE FROM `{self._table}` WHERE user_id IN UNNEST(@users)"  # noqa: S608  # a checked name
            job = client.query(sql, job_config=config, location=self._location)
            job.result(timeout=JOB_SECONDS)
            return int(job.num_dml_affected_rows or 0)

    def close(self) -> None:
        """Close the connections."""
        client, self._opened = self._opened, None
        if client is not None:
            client.close()

    def _job(self, client: Any, content: bytes, id: str, config: Any) -> tuple[Any, bool]:
        """Return the job of an id, and whether this call has begun it."""
        try:
            job = client.load_table_from_file(
                io.BytesIO(content),
                self._table,
                size=len(content),
                job_id=id,
                location=self._location,
                job_config=config,
                num_retries=0,
            )
        except self._exceptions().Conflict:
            return client.get_job(id, location=self._location), False
        return job, True

    def _exceptions(self) -> Any:
        from google.api_core import exceptions

        return exceptions

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        """Give the client, and turn errors into ours."""
        import requests
        from google.auth import exceptions as auth
        from google.auth.credentials import AnonymousCredentials

        try:
            if self._opened is None:
                options: dict[str, Any] = {"project": self._project, "location": self._location}
                if self._endpoint is not None:
                    anonymous: Any = AnonymousCredentials
                    options |= {
                        "credentials": anonymous(), "client_options": {"api_endpoint": self._endpoint}
                    }  # fmt: skip
                self._opened = self._library.Client(**options)
            yield self._opened
        except (SinkError, Refused):
            raise
        except self._exceptions().GoogleAPICallError as error:
            raise self._explained(error, of_job=False) from None
        except auth.TransportError as error:
            raise TransientError(f"BigQuery does not answer ({type(error).__name__})") from None
        except auth.GoogleAuthError as error:
            raise OperatorError(f"the credentials for BigQuery cannot be used ({type(error).__name__})") from None
        except (self._exceptions().RetryError, requests.RequestException, TimeoutError, OSError) as error:
            raise TransientError(f"BigQuery does not answer ({type(error).__name__})") from None

    def _explained(self, error: Any, *, of_job: bool) -> Exception:
        """Return what an answer means; its text is not told, because it may quote a row."""
        reasons = [str(one.get("reason", "")) for one in error.errors or [] if isinstance(one, dict)]
        said = f"{error.code} {' '.join(dict.fromkeys(filter(None, reasons)))}".strip()
        limit = any(reason in LIMITS for reason in reasons)
        if limit or error.code in (408, 429, 500, 502, 503, 504):
            asked = str(getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", ""))
            waits = [QUOTA_SECONDS] if "quotaExceeded" in reasons else []
            waits += [float(asked)] if asked.isdecimal() else []
            return TransientError(
                f"BigQuery is busy or limits the export ({said})", retry_after=max(waits, default=None)
            )
        if of_job and error.code == 400:
            return Refused(f"BigQuery refuses a value ({said})")
        return OperatorError(f"BigQuery refuses ({said})")


def _lines(batch: Sequence[Row]) -> bytes:
    """Return the rows as lines of JSON, in which JSON columns are objects: a text would be a JSON string."""
    names = [column.name for column in SCHEMA]
    raw = [place for place, column in enumerate(SCHEMA) if column.kind == "json"]
    lines = []
    for row in batch:
        values = list(row)
        for place in raw:
            if values[place] is not None:
                values[place] = msgspec.Raw(values[place].encode())
        lines.append(msgspec.json.encode(dict(zip(names, values, strict=True))))
    return b"\n".join(lines)
