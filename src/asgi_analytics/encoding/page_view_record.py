"""The record of a ``page_view`` that the middleware has seen."""

from __future__ import annotations

from typing import Any, ClassVar

from asgi_analytics.encoding.caller import Caller, with_caller
from asgi_analytics.encoding.ids import request_id_of
from asgi_analytics.encoding.records import Record
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.events.named import PAGE_VIEW, NamedEvent
from asgi_analytics.traffic import MAX_QUERY, MAX_REFERRER, arrival, host_of


class PageViewRecord(Record, gc=False):
    """One page that was shown. Where the view came from is found out in the worker, which then drops the query."""

    page: str | None
    """The template of the route."""
    url: str | None
    """The path that arrived, if it is to be stored."""
    query: bytes
    referrer: bytes
    host: bytes
    request_number: int
    """Of the request's event: its request id is made of it, if it came without one."""
    caller: Caller

    event_type: ClassVar[str] = PAGE_VIEW

    def data(self) -> dict[str, Any]:
        """Return what becomes the ``data`` of the line."""
        if self.request_id is None:
            self.request_id = request_id_of(self.request_number)
        found = arrival(
            self.query[:MAX_QUERY].decode("latin-1"),
            self.referrer[:MAX_REFERRER].decode("latin-1"),
            host_of(f"http://{self.host.decode('latin-1')}"),
        )
        data = {
            "page": None if self.page is None else clean_text(self.page),
            "url": None if self.url is None else clean_text(self.url),
            "referrer": found.referrer,
            "channel": found.channel,
        }
        utm = {name: clean_text(value) for name, value in found.utm.items()}
        return {name: value for name, value in data.items() if value is not None} | utm

    def event(self) -> NamedEvent:
        """Return the event."""
        return NamedEvent(
            event_type=PAGE_VIEW, user_id=self.user_id, session_id=self.session_id, properties=self.data()
        )

    def line(self) -> bytes:
        """Return the JSON of the event, its caller as the worker has described it."""
        return with_caller(super().line(), self.caller)
