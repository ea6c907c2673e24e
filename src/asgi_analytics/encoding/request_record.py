"""The record of an ``ApiRequest``: every request makes one."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from asgi_analytics.encoding.ids import request_id_of
from asgi_analytics.encoding.records import Record
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.events.captured import ApiRequest


class RequestData(msgspec.Struct, gc=False, omit_defaults=True):
    """The fields of an ``ApiRequest`` but for its user, which stands in the envelope."""

    method: str
    status_code: int
    duration_ms: float
    outcome: str
    endpoint: str | None = None
    ttfb_ms: float | None = None
    response_bytes: int | None = None
    error_type: str | None = None
    close_code: int | None = None
    db_queries: int | None = None
    db_duration_ms: float | None = None
    db_repeats: int | None = None


class RequestRecord(Record, gc=False):
    """One request, or one WebSocket connection. Durations are nanoseconds."""

    method: str
    endpoint: str | None
    status: int
    outcome: str
    error_type: str | None
    close_code: int | None
    duration: int
    ttfb: int | None
    response_bytes: int | None
    db_queries: int | None
    db_duration_ms: float | None
    db_repeats: int | None

    event_type: ClassVar[str] = "api_request"

    def data(self) -> RequestData:
        """Return what becomes the ``data`` of the line."""
        if self.request_id is None:
            self.request_id = request_id_of(self.number)
        return RequestData(
            self.method,
            self.status,
            _milliseconds(self.duration),
            self.outcome,
            None if self.endpoint is None else clean_text(self.endpoint),
            None if self.ttfb is None else _milliseconds(self.ttfb),
            self.response_bytes,
            None if self.error_type is None else clean_text(self.error_type),
            self.close_code,
            self.db_queries,
            self.db_duration_ms,
            self.db_repeats,
        )

    def event(self) -> ApiRequest:
        """Return the event."""
        fields = msgspec.structs.asdict(self.data())
        return ApiRequest(user_id=self.user_id, **fields)


def _milliseconds(nanoseconds: int) -> float:
    return nanoseconds // 1000 / 1000
