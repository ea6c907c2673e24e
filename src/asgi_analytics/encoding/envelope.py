"""What surrounds the data of an event in its JSON line."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class Context(msgspec.Struct, gc=False):
    """Where an event happened."""

    trace_id: str | None
    span_id: str | None
    request_id: str | None
    hostname: str | None
    environment: str | None
    user_key: str | msgspec.UnsetType = msgspec.UNSET


class Line(msgspec.Struct, gc=False):
    """The members of a line, in their order."""

    event_id: UUID
    event_type: str
    timestamp: datetime
    service: str
    user_id: UUID | None
    session_id: str | None
    data: Any
    context: Context | msgspec.UnsetType = msgspec.UNSET


class Surroundings(msgspec.Struct, gc=False):
    """What is known of where an event is tracked: the request, if any, and its trace."""

    user_id: object = None
    session_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    request_id: str | None = None
