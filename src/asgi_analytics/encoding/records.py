"""Captured events as records: the application keeps what differs from one event to the next, the worker makes the JSON.

A record costs the application a third of what the JSON would. Its line holds what an `EventEncoder` would make of its
event; tests compare the two. A record holds nothing that the garbage collector has to look into.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self
from uuid import UUID

import msgspec
from opentelemetry.trace import format_span_id, format_trace_id

from asgi_analytics.encoding.envelope import Context, Line
from asgi_analytics.encoding.ids import event_id_of
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.events.base import Event, UserId

RECORD_BYTES = 600
"""What a record counts for in the queue, in bytes, besides its text of unbounded length: about what its line will have,
and more than the record itself."""

_encode = msgspec.json.Encoder().encode
_EPOCH = datetime.fromtimestamp(0, UTC)


class Source(msgspec.Struct, frozen=True):
    """What is the same for all events of a client."""

    service: str
    hostname: str | None
    environment: str | None

    @classmethod
    def of(cls, service: str, hostname: str | None, environment: str | None) -> Self:
        """Return a source whose texts can be stored."""
        return cls(clean_text(service), hostname and clean_text(hostname), environment and clean_text(environment))


class Record(msgspec.Struct, gc=False):
    """What all captured events have. Records are made by position: msgspec takes 40 times as long for keywords."""

    source: Source
    weight: int
    """What it counts for in the queue, in bytes."""
    time: int
    """When it happened, in Unix nanoseconds."""
    number: int
    """Of `ids.next_number`: the rest of its id."""
    user_id: UserId | None
    session_id: str | None
    request_id: str | None
    span: tuple[int, int] | None

    event_type: ClassVar[str]

    def event(self) -> Event:
        """Return the event, for a client that has to see or change it."""
        raise NotImplementedError  # each type of event has fields of its own

    def data(self) -> Any:
        """Return what becomes the ``data`` of the line."""
        raise NotImplementedError  # each type of event has fields of its own

    def line(self) -> bytes:
        """Return the JSON of the event. Raises ValueError or TypeError for what JSON cannot hold."""
        user, user_key = (None, None) if self.user_id is None else user_uuid(self.user_id)
        trace_id, span_id = (None, None)
        if self.span is not None:
            trace_id, span_id = format_trace_id(self.span[0]), format_span_id(self.span[1])
        source = self.source
        return _encode(
            Line(
                event_id_of(self.time, self.number),
                self.event_type,
                _EPOCH + timedelta(microseconds=self.time // 1000),
                source.service,
                user,
                None if self.session_id is None else clean_text(self.session_id),
                self.data(),
                Context(
                    trace_id,
                    span_id,
                    self.request_id,
                    source.hostname,
                    source.environment,
                    msgspec.UNSET if user_key is None else user_key,
                ),
            )
        )


def extra_weight(user_id: object, *texts: str | None) -> int:
    """Return what a user and texts of any length add to `RECORD_BYTES`."""
    weight = 0 if user_id is None or type(user_id) is UUID else len(str(user_id))
    for text in texts:
        if text:
            weight += len(text)
    return weight
