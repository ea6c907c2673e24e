"""PageViews: which requests show a page, and what is looked at of those that do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from asgi_analytics.encoding.caller import MAX_AGENT, MAX_HOST, Caller
from asgi_analytics.encoding.ids import next_number
from asgi_analytics.encoding.page_view_record import PageViewRecord
from asgi_analytics.errors import ConfigError
from asgi_analytics.log import failure, log_problem
from asgi_analytics.traffic import MAX_QUERY, MAX_REFERRER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asgi_analytics.encoding.request_record import RequestRecord
    from asgi_analytics.instrumentation.types import Scope


class PageViews:
    """Lets `AnalyticsMiddleware` make a ``page_view`` of each page that it sees: ``page_views=PageViews()``.

    A page is what a GET answers with ``text/html`` and a status of 2xx or 304, if the browser asked for a document and
    not ahead of time. ``store_paths`` keeps the path that arrived as ``url``; otherwise only the route is stored.
    ``respect_gpc`` makes a visitor whose browser sends ``Sec-GPC: 1`` no visitor: counted, but not followed.
    ``address`` is a function of the scope that returns the address of the caller, for an application behind proxies; by
    default it is the scope's client. ``country_header`` names a header in which a proxy of yours says the country; set
    it only if every request comes through that proxy, since anybody else could forge it. Raises `ConfigError` for a
    wrong option.
    """

    def __init__(
        self,
        *,
        store_paths: bool = False,
        respect_gpc: bool = True,
        address: Callable[[Scope], str | None] | None = None,
        country_header: str | None = None,
    ) -> None:
        for name, value in (("store_paths", store_paths), ("respect_gpc", respect_gpc)):
            if not isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}: use True or False")
        if address is not None and not callable(address):
            raise ConfigError("address must be a callable that takes the ASGI scope and returns an address")
        if country_header is not None and (not isinstance(country_header, str) or not country_header.isascii()):
            raise ConfigError(f"country_header is {country_header!r}: use the name of a header, 'CF-IPCountry'")
        self.store_paths = store_paths
        self.respect_gpc = respect_gpc
        self.address = address
        _load_devices()
        self.country_header = None if country_header is None else country_header.lower().encode()

    def caller(self, scope: Scope, headers: Mapping[bytes, bytes], time: int) -> Caller:
        """Return who sent a request; ``time`` is in Unix nanoseconds."""
        if self.address is None:
            client = scope.get("client")
            address = client[0] if client else None
        else:
            address = self.address_of(scope)
        return Caller(
            time,
            address,
            headers.get(b"user-agent", b"")[:MAX_AGENT],
            headers.get(b"host", b"")[:MAX_HOST],
            None if self.country_header is None else headers.get(self.country_header),
            not (self.respect_gpc and headers.get(b"sec-gpc") == b"1"),
        )

    def record(
        self, scope: Scope, headers: Mapping[bytes, bytes], request: RequestRecord, caller: Caller
    ) -> PageViewRecord:
        """Return the record of the page that a request has shown."""
        query, referrer = scope.get("query_string", b"")[:MAX_QUERY], headers.get(b"referer", b"")[:MAX_REFERRER]
        return PageViewRecord(
            request.source,
            request.weight + len(query) + len(referrer) + len(caller.agent),
            request.time,
            next_number(),
            request.user_id,
            request.session_id,
            request.request_id,
            request.span,
            request.endpoint,
            scope["path"] if self.store_paths else None,
            query,
            referrer,
            headers.get(b"host", b"")[:MAX_HOST],
            request.number,
            caller,
        )

    def address_of(self, scope: Scope) -> str | None:
        """Return the address of who sent a request; None if it is not known."""
        if self.address is None:
            client = scope.get("client")
            return client[0] if client else None
        try:
            address = self.address(scope)
        except Exception as error:
            log_problem(("address", self.address), "the address of PageViews raised %s", failure(error))
            return None
        if address is None or isinstance(address, str):
            return address
        log_problem(
            ("address", self.address), "the address of PageViews returned a %s, not a str", type(address).__name__
        )
        return None


def _load_devices() -> None:
    """Load what the worker tells devices by, if it is installed.

    That takes a fifth of a second: better now, when the application starts, than when it serves.
    """
    with contextlib.suppress(ImportError):
        import ua_parser

        ua_parser.parse("")


def asks_for_page(headers: Mapping[bytes, bytes], shows_html: bool | None) -> bool:
    """Tell whether a browser asks for a page that somebody is to see.

    ``shows_html`` is what `shows_html` has said: a 304 that does not say what it is of is a page if the browser asked
    for a document.
    """
    wanted = headers.get(b"sec-fetch-dest")
    if wanted is None:
        if shows_html is None:
            return False
    elif wanted != b"document":
        return False
    purpose = headers.get(b"sec-purpose") or headers.get(b"purpose")
    return purpose is None or b"prefetch" not in purpose


def shows_html(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bool | None:
    """Tell by the start of a response whether it can be a page; None for a 304 that does not say what it is of."""
    if (status >= 300 and status != 304) or status < 200:
        return False
    for name, value in headers:
        if name == b"content-type" or name == b"Content-Type":  # Django's names have capitals
            return value.startswith(b"text/html") or value[:9].lower() == b"text/html"
    return None if status == 304 else False
