"""The sink that sends to an ingestion service, for applications that must not reach the database."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, ClassVar, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from asgi_analytics import values
from asgi_analytics.errors import ConfigError, MissingExtra, OperatorError, SinkError, TransientError
from asgi_analytics.events.base import categories_to_note, definitions
from asgi_analytics.events.named import write_categories
from asgi_analytics.sinks.base import CATEGORIES_HEADER, Receipt, Rejected

try:
    import httpx2
except ImportError:  # found by a URL's scheme, so this module is imported without the extra too
    httpx2 = None  # type: ignore[assignment]  # the constructor says what is missing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATH = "/events/batch"
CONNECT_TIMEOUT = 10.0
SEND_TIMEOUT = 30.0
ANSWER_TIMEOUT = 60.0
"""Seconds; the last is longer than the service waits for its database."""

KEEP_ALIVE = 60.0
MOST_HEADER = 3000
"""Characters of the categories of types that go with one batch; servers and proxies limit headers."""
_WORTH_PACKING = 1024
_GZIP = 31

_CURES = {
    401: "the token is missing or not accepted: set ANALYTICS_TOKEN to one of the service's ANALYTICS_TOKENS",
    403: "something in front of the service refuses us: check the token and the proxy",
    404: "there is no ingestion service at the URL: check its host, port and path",
    405: "there is no ingestion service at the URL: check its host, port and path",
    415: "the service does not take JSON in gzip: check what stands at the URL",
}


class _Refusal(msgspec.Struct):
    index: int
    reason: str
    field: str | None = None


class _Result(msgspec.Struct):
    received: int
    duplicates: int
    rejected: list[_Refusal]


class _Problem(msgspec.Struct):
    status: int
    detail: str


_decode_result = msgspec.json.Decoder(_Result).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode


class _Progress:
    """A batch that goes out in parts: what is settled, and what is left, last part first."""

    def __init__(self, batch: Sequence[bytes]) -> None:
        self.batch = batch
        self.left = [(0, len(batch))]
        self.duplicates = 0
        self.rejected: list[Rejected] = []

    def halve(self, start: int, end: int) -> None:
        middle = (start + end) // 2
        self.left += [(middle, end), (start, middle)]


class HttpSink:
    """Sends each batch to ``POST {url}/events/batch``, as gzip, over a connection that is kept.

    ``token`` is sent as ``Authorization: Bearer``. ``make_client`` returns an `httpx2.AsyncClient` where a proxy, a
    certificate or a timeout of your own is needed; it is called once for each event loop, and nothing is read from the
    environment otherwise. Raises `MissingExtra` where httpx2 is not installed, `ConfigError` for a wrong URL.

    The service's answer settles each event. A batch that is too large is halved, and what was settled of it is not
    sent again when the rest has to wait. An event that alone is too large is rejected.
    """

    schemes: ClassVar[tuple[str, ...]] = ("http", "https")

    def __init__(
        self, url: str, *, token: str | None = None, make_client: Callable[[], httpx2.AsyncClient] | None = None
    ) -> None:
        if httpx2 is None:
            raise MissingExtra("httpx2", "http")
        self._url = _endpoint(url)
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "asgi-analytics",
        }
        if token:
            try:
                self._headers["Authorization"] = f"Bearer {values.token(token)}"
            except ValueError as error:
                raise ConfigError(f"the token cannot stand in a header: {error}") from None
        self._make_client = make_client or _make_client
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._progress: _Progress | None = None
        self._too_large: float = float("inf")
        self._definitions = 0
        self._categories: list[str] = []

    @classmethod
    def from_url(cls, url: str, *, token: str | None = None) -> Self:
        """Return a sink for ``http://host:8094`` or ``https://host/prefix``."""
        return cls(url, token=token)

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Send a batch until each of its events is settled."""
        progress = self._progress
        if progress is None or progress.batch is not batch:  # not the same batch tried again
            progress = self._progress = _Progress(batch)
        while progress.left:
            start, end = progress.left[-1]
            part = batch[start:end]
            size = sum(map(len, part)) + len(part) + 1
            if size >= self._too_large and len(part) > 1:
                progress.left.pop()
                progress.halve(start, end)
            elif part:
                await self._send(progress, part, size)
            else:
                progress.left.pop()
        self._progress = None
        return Receipt(progress.duplicates, progress.rejected)

    async def _send(self, progress: _Progress, part: Sequence[bytes], size: int) -> None:
        """Send the last part that is left, and settle or halve it; raises `SinkError` and leaves it."""
        response = await self._post(b"[" + b",".join(part) + b"]")
        status = response.status_code
        if status in (200, 422):
            del self._categories[:1]
            result = _result(response, len(part))
            start, _ = progress.left.pop()
            progress.duplicates += result.duplicates
            progress.rejected += [Rejected(start + one.index, one.reason, one.field) for one in result.rejected]
        elif status == 413 or (status == 400 and _is_ours(response)):
            start, end = progress.left.pop()
            if end - start > 1:
                if status == 413:
                    self._too_large = min(self._too_large, size)
                progress.halve(start, end)
            else:
                reason = "too large for the ingestion service" if status == 413 else "no JSON for the ingestion service"
                progress.rejected.append(Rejected(start, reason))
        else:
            raise _failure(response)

    async def _post(self, body: bytes) -> httpx2.Response:
        headers = self._headers
        if self._definitions != (newest := definitions()):
            self._definitions = newest
            self._categories = write_categories(categories_to_note(), MOST_HEADER)
        if self._categories:
            headers = {**headers, CATEGORIES_HEADER: self._categories[0]}
        if len(body) >= _WORTH_PACKING:
            body = zlib.compress(body, level=1, wbits=_GZIP)
            headers = {**headers, "Content-Encoding": "gzip"}
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # A client belongs to one loop; that of a loop which has ended cannot be closed any more, only left.
            self._client, self._loop = self._make_client(), loop
        try:
            return await self._client.post(self._url, content=body, headers=headers)
        except (httpx2.TransportError, OSError) as error:
            raise _unreachable(error) from error
        except httpx2.HTTPError as error:
            raise OperatorError(f"the ingestion service's answer cannot be read: {type(error).__name__}") from error

    async def aclose(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            with contextlib.suppress(Exception):
                await client.aclose()


def _make_client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(SEND_TIMEOUT, connect=CONNECT_TIMEOUT, read=ANSWER_TIMEOUT),
        limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE),
        trust_env=False,
    )


def _endpoint(url: str) -> str:
    """Return where batches go; raises `ConfigError`, without repeating the URL."""
    if not isinstance(url, str):
        raise ConfigError(f"the ingestion URL is a {type(url).__name__}, not a str: use http://host:8094")
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        raise ConfigError("the ingestion URL cannot be read: use http://host:8094") from None
    if parts.scheme not in HttpSink.schemes:
        raise ConfigError("the ingestion URL does not begin with http:// or https://: use http://host:8094")
    if not parts.hostname:
        raise ConfigError("the ingestion URL has no host: use http://host:8094")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("the ingestion URL holds a user or a password: give the token by itself, ANALYTICS_TOKEN")
    if parts.query or parts.fragment:
        raise ConfigError("the ingestion URL has a query or a fragment: use http://host:8094")
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(PATH) else path + PATH))


def _result(response: httpx2.Response, sent: int) -> _Result:
    """Return what became of a part; raises `OperatorError` where the answer does not account for each event once."""
    try:
        result = _decode_result(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        result = _Result(-1, 0, [])
    places = {one.index for one in result.rejected}
    if (
        result.received + len(result.rejected) != sent
        or len(places) != len(result.rejected)
        or any(not 0 <= place < sent for place in places)
        or not 0 <= result.duplicates <= result.received
    ):
        raise OperatorError(f"what answers {response.status_code} at the URL is no ingestion service: check the URL")
    return result


def _is_ours(response: httpx2.Response) -> bool:
    """Tell whether the service itself refused, not a proxy that would refuse everything: then nothing is rejected."""
    try:
        return _decode_problem(response.content).status == response.status_code
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _failure(response: httpx2.Response) -> SinkError:
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        said = f"the ingestion service answered {status}"
        return TransientError(said, retry_after=_retry_after(response.headers.get("retry-after")))
    if 300 <= status < 400:
        return OperatorError(f"the ingestion service answered {status}: use the URL that it redirects to")
    return OperatorError(
        f"the ingestion service answered {status}: {_CURES.get(status, 'check what stands at the URL')}"
    )


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _unreachable(error: BaseException) -> SinkError:
    cause: BaseException | None = error
    why = type(error).__name__
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            why = cause.strerror  # the cause of causes: what httpx2 says of it is that all attempts failed
        if isinstance(cause, ssl.SSLCertVerificationError):
            return OperatorError("the certificate of the ingestion service is not trusted: give HttpSink a make_client")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.UnsupportedProtocol):
        return OperatorError("the ingestion URL cannot be used: use http://host:8094")
    return TransientError(f"the ingestion service cannot be reached: {why}")
