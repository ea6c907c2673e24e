"""From an event to the bytes that are queued, sent and stored: one encoding from end to end.

Most events hold exactly the types that they declare: their values go to the encoder as they are. For any other event
each value is converted, cleaned and validated, or the event is refused with the reason.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asgi_analytics.encoding.envelope import Context, Line, Surroundings
from asgi_analytics.encoding.ids import mint
from asgi_analytics.encoding.shape import UNREADABLE, Shape
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.encoding.users import personal_hash, user_uuid
from asgi_analytics.encoding.values import ByteBudget, clean, exact_datetime, reason_of
from asgi_analytics.errors import ConfigError, InvalidEvent
from asgi_analytics.events.base import Event, event_class
from asgi_analytics.events.named import NamedEvent, tag_of

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 * 1024 * 1024
"""How large an event may be, unless the encoder is told otherwise."""

NOWHERE = Surroundings()

_encode = msgspec.json.Encoder().encode
# Bound here: what freezes time in a test puts another class in the place of datetime, whose objects cannot be encoded.
# The frozen time comes from time.time_ns(), which is looked up for each event.
_from_timestamp = datetime.fromtimestamp
_BACKSLASH, _NUL = ord("\\"), b"\\u0000"


class EventEncoder:
    """Encodes events for one service: ``encode(event, surroundings)`` returns the event's final JSON."""

    def __init__(
        self,
        *,
        service: str,
        environment: str | None,
        hostname: str | None,
        hash_key: bytes | None = None,
        keep_personal_data: bool = False,
        clock: Callable[[], datetime] | None = None,
        new_id: Callable[[], UUID] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.service = clean_text(service)
        self.hostname = hostname and clean_text(hostname)
        self.mints = clock is None and new_id is None
        """Whether neither time nor ids are fixed."""
        self.clock = None if clock is None else lambda: _clock_time(clock())
        self._environment = environment and clean_text(environment)
        self._hide = personal_hash(hash_key, keep_personal_data)
        self._keep_personal_data = keep_personal_data
        self._new_id = new_id
        self._max_bytes = max_bytes
        self._context_of_nowhere = self._context(NOWHERE, None)
        self._shapes: dict[type[Event], Shape] = {}

    def encode(self, event: Event, surroundings: Surroundings | None = None) -> bytes:
        """Return the JSON of an event; raises `InvalidEvent` with the field and the reason."""
        shape = self._shapes.get(type(event))
        if shape is None:
            if isinstance(event, NamedEvent):
                return self._encode_named(event, surroundings or NOWHERE)
            shape = self._learn(type(event))
        if self.mints:
            now = time.time_ns()
            event_id, timestamp = mint(now), _from_timestamp(now / 1e9, UTC)
        else:
            event_id, timestamp = self._fixed_identity(shape.event_type)
        try:
            row = shape.exact_row(event)
            if row is not None:
                for name in shape.personal:
                    if (value := getattr(row, name)) is not None:
                        setattr(row, name, self._hide(value))
                line = self._line(shape, event_id, timestamp, row, event, surroundings)
                # To look for one byte first costs a tenth of looking for the text.
                if _BACKSLASH not in line or _NUL not in line:
                    return line
        except (TypeError, ValueError, OverflowError):
            pass  # a lone surrogate, a number too long: converted below, or refused with what is wrong
        row, surroundings = self._convert(shape, event, surroundings or NOWHERE)
        try:
            return self._line(shape, event_id, timestamp, row, event, surroundings)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidEvent(f"{shape.event_type}: {reason_of(error)}") from None

    def _learn(self, cls: type[Event]) -> Shape:
        """Return the shape of a class that was not met before."""
        if not (isinstance(cls, type) and issubclass(cls, Event)) or cls is Event:
            if issubclass(cls, type):
                raise InvalidEvent("a class was tracked, not an event: call it with its fields, TaskCreated(…)")
            raise InvalidEvent(
                f"{cls.__module__}.{cls.__qualname__} is not an event: track an instance of a subclass of Event"
            )
        try:
            shape = self._shapes[cls] = Shape(cls)
        except UNREADABLE as error:
            raise InvalidEvent(f"the fields of {cls.__qualname__} cannot be read: {error}") from None
        return shape

    def _encode_named(self, event: NamedEvent, surroundings: Surroundings) -> bytes:
        """Return the JSON of an event that has no class."""
        try:
            event_type = tag_of(event.event_type)
        except ConfigError as error:
            raise InvalidEvent(str(error)) from None
        event_id, timestamp = self._fixed_identity(event_type)
        try:
            if not isinstance(event.properties, dict):
                raise InvalidEvent(f"{event_type}: the properties are no dict")
            data = clean(event.properties, event_type, ByteBudget(self._max_bytes))
            for name in self._personal_of(event_type):
                if name in data:
                    data[name] = self._hidden(data[name])
            surroundings = self._cleaned(surroundings, ByteBudget(self._max_bytes))
            session_id = surroundings.session_id if event.session_id is None else clean_text(str(event.session_id))
            user_id = surroundings.user_id if event.user_id is None else event.user_id
            user, user_key = (None, None) if user_id is None else user_uuid(user_id)
            line = Line(event_id, event_type, timestamp, self.service, user, session_id, data)
            return _encode(line)[:-1] + self._context(surroundings, user_key)
        except InvalidEvent:
            raise
        except RecursionError:
            raise InvalidEvent(f"{event_type} is nested too deeply") from None
        except SystemError:  # msgspec before 0.22
            raise InvalidEvent(f"{event_type}: a number is out of range") from None
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidEvent(f"{event_type}: {reason_of(error)}") from None

    def _personal_of(self, event_type: str) -> set[str]:
        """Return the personal fields of the class with a tag: they are hidden too if the event is made without it."""
        known = event_class(event_type)
        if known is None:
            return set()
        shape = self._shapes.get(known) or self._learn(known)
        return {field.encode_name for field in shape.fields if field.name in shape.personal}

    def _fixed_identity(self, event_type: str) -> tuple[UUID, datetime]:
        now = time.time_ns()
        try:
            return (
                self._new_id() if self._new_id else mint(now),
                self.clock() if self.clock else _from_timestamp(now / 1e9, UTC),
            )
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidEvent(f"{event_type}: {reason_of(error)}") from None

    def _line(
        self,
        shape: Shape,
        event_id: UUID,
        timestamp: datetime,
        row: Any,
        event: Event,
        surroundings: Surroundings | None,
    ) -> bytes:
        user_id: Any = event.user_id if shape.has_user else None  # type: ignore[attr-defined]  # it has the field
        session_id, user_key = None, None
        if surroundings is not None:
            session_id = surroundings.session_id
            if user_id is None:
                user_id = surroundings.user_id
        if user_id is not None and type(user_id) is not UUID:
            user_id, user_key = user_uuid(user_id)
        if surroundings is None and user_key is None:
            context = self._context_of_nowhere
        else:
            context = self._context(surroundings or NOWHERE, user_key)
        line = Line(event_id, shape.event_type, timestamp, self.service, user_id, session_id, row)
        # The encoder leaves up to half of its buffer behind what it returns. The copy has its exact size, and events
        # may wait for long.
        return _encode(line)[:-1] + context

    def _context(self, surroundings: Surroundings, user_key: str | None) -> bytes:
        """Return how a line ends: with the context, and the brace of the whole."""
        context = Context(
            surroundings.trace_id,
            surroundings.span_id,
            surroundings.request_id,
            self.hostname,
            self._environment,
            msgspec.UNSET if user_key is None else user_key,
        )
        return b',"context":' + _encode(context) + b"}"

    def _convert(self, shape: Shape, event: Event, surroundings: Surroundings) -> tuple[Any, Surroundings]:
        """Return the row and the surroundings with each value converted, cleaned and validated."""
        try:
            budget = ByteBudget(self._max_bytes)
            values = {f.encode_name: clean(getattr(event, f.name), f.encode_name, budget) for f in shape.fields}
            row = msgspec.convert(values, shape.row)
            budget = ByteBudget(self._max_bytes)
            for f in shape.fields:  # once more: a string has become what the field declares, a naive datetime maybe
                value = clean(getattr(row, f.name), f.encode_name, budget)
                setattr(row, f.name, self._hidden(value) if f.name in shape.personal else value)
            return row, self._cleaned(surroundings, budget)
        except InvalidEvent:
            raise
        except RecursionError:
            raise InvalidEvent(f"{shape.event_type} is nested too deeply") from None
        except SystemError:  # msgspec before 0.22
            raise InvalidEvent(f"{shape.event_type}: a number is out of range") from None
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidEvent(f"{shape.event_type}: {reason_of(error)}") from None

    def _cleaned(self, surroundings: Surroundings, budget: ByteBudget) -> Surroundings:
        texts = {
            name: clean(getattr(surroundings, name), name, budget)
            for name in ("session_id", "trace_id", "span_id", "request_id")
        }
        if texts["session_id"] is not None:
            texts["session_id"] = str(texts["session_id"])
        return Surroundings(user_id=surroundings.user_id, **texts)

    def _hidden(self, value: Any) -> Any:
        if value is None or self._keep_personal_data:
            return value
        return self._hide(value if isinstance(value, str) else _encode(value).decode())


def _clock_time(now: datetime) -> datetime:
    if not isinstance(now, datetime):
        raise TypeError(f"the clock gives a {type(now).__name__}: give an aware datetime, datetime.now(UTC)")
    if now.tzinfo is None:
        raise ValueError("the clock gives a naive datetime: give it a time zone, datetime.now(UTC)")
    return exact_datetime(now.astimezone(UTC))
