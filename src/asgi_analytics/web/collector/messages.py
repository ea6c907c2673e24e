"""What a browser says: from the body of a request to the event that is stored of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.events.named import LINK_CLICKED, PAGE_ENGAGED, PAGE_VIEW, NamedEvent, dotted_tag
from asgi_analytics.log import failure, log_problem
from asgi_analytics.traffic import MAX_REFERRER, arrival, host_of, path_of, query_of

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PAGE = 500
"""Characters of a route that are kept."""

MAX_VISIBLE_MS = 24 * 3_600_000
"""No page is looked at for longer than a day."""

_ID = re.compile(
    r"[0-9]+|[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}|(?=[a-zA-Z_-]*[0-9])[0-9a-fA-F_-]{12,}"
)


class InvalidMessage(ValueError):
    """The body is not what the script sends; the text says why, and quotes nothing."""


class _Said(msgspec.Struct):
    event: str
    page: str
    referrer: str | None = None
    properties: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Said).decode


class Messages:
    """Reads what browsers send: what the script makes by itself, and the ``names`` that a page may track."""

    def __init__(self, names: frozenset[str], page: Callable[[str], str]) -> None:
        self._names = names
        self._page = page

    def event(self, body: bytes, own_host: str | None) -> NamedEvent:
        """Return the event; raises `InvalidMessage`. Who said it is not for the browser to say."""
        try:
            said = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidMessage("the body is not a JSON object with an event and a page") from None
        name = dotted_tag(said.event) or said.event
        properties = said.properties or {}
        page: dict[str, Any] = {"page": self._page_of(said.page)}
        if name == PAGE_VIEW:
            data = page | self._arrival(said, own_host)
        elif name == PAGE_ENGAGED:
            data = page | {"visible_ms": _visible_ms(properties.get("visible_ms"))}
        elif name == LINK_CLICKED:
            host = properties.get("host")
            if not isinstance(host, str) or (host := host_of(f"http://{host[:MAX_REFERRER]}")) is None:
                raise InvalidMessage("the host of the link is missing")
            data = page | {"host": host}
        elif name in self._names:
            data = properties | page
        else:
            raise InvalidMessage("this event is not among the events=[…] of the collector")
        return NamedEvent(event_type=name, properties=data)

    def _page_of(self, url: str) -> str:
        path = path_of(url)
        try:
            page = self._page(path)
        except Exception as error:
            log_problem(("page", self._page), "the page of the collector raised %s", failure(error))
            page = route_of(path)
        return str(page)[:MAX_PAGE]

    @staticmethod
    def _arrival(said: _Said, own_host: str | None) -> dict[str, Any]:
        found = arrival(query_of(said.page), said.referrer, own_host)
        referrer = {} if found.referrer is None else {"referrer": found.referrer}
        return {**referrer, "channel": found.channel, **found.utm}


def route_of(path: str) -> str:
    """Return a path with ``{id}`` in the place of each number, UUID and long hexadecimal text."""
    return "/".join("{id}" if _ID.fullmatch(part) else part for part in path.split("/"))


def _visible_ms(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_VISIBLE_MS:
        raise InvalidMessage("visible_ms is not a number of milliseconds within a day")
    return value
