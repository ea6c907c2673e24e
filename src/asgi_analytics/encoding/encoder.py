"""From an event to the bytes that are queued, sent and stored: one encoding from end to end.

Most events hold exactly the types they declare. For those each class gets a function, written once from its fields,
that checks the types, makes the envelope and encodes all of it in one go. Whatever does not fit takes the thorough
way: values are converted, cleaned and validated, or the event is refused with the reason.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from asgi_analytics.encoding.ids import mint
from asgi_analytics.encoding.shape import Shape
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.encoding.users import personal_hash, user_uuid
from asgi_analytics.encoding.values import Room, clean, exact_datetime, said
from asgi_analytics.errors import InvalidEvent
from asgi_analytics.events.base import Event

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 64 * 1024 * 1024
"""How large an event may be, unless the encoder is told otherwise."""

_json = msgspec.json.Encoder()
# Bound here: what freezes datetime in a test puts a class in its place whose objects cannot be encoded.
_now = datetime.now
_NUL = b"\\u0000"


class _Line(msgspec.Struct, gc=False):
    event_id: Any
    event_type: str
    timestamp: datetime
    service: str
    user_id: UUID | None
    session_id: str | None
    data: Any


class Context(msgspec.Struct, gc=False):
    """Where an event happened."""

    trace_id: str | None
    span_id: str | None
    request_id: str | None
    hostname: str | None
    environment: str | None
    user_key: str | msgspec.UnsetType = msgspec.UNSET


class Facts(msgspec.Struct, gc=False):
    """What the surroundings say about an event."""

    user_id: object = None
    session_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    request_id: str | None = None


NO_FACTS = Facts()


class EventEncoder:
    """Encodes events for one service: ``encode(event, facts)`` returns the event's final JSON."""

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
        self._hostname = hostname and clean_text(hostname)
        self._environment = environment and clean_text(environment)
        self._hide = personal_hash(hash_key, keep_personal_data)
        self._keep_personal_data = keep_personal_data
        self.clock = None if clock is None else lambda: _clock_time(clock())
        self._new_id = new_id
        self._max_bytes = max_bytes
        self._plain_context = self._context(NO_FACTS, None)
        self._shapes: dict[type[Event], Shape] = {}
        self.plain: dict[type, Callable[[Any], bytes | None]] = {}
        """For each class met, the quickest way to the JSON of an event without facts; None: use `encode`."""
        self._functions: dict[type, Callable[..., bytes | None]] = {}

    def encode(self, event: Event, facts: Facts | None = None) -> bytes:
        """Return the JSON of an event; raises `InvalidEvent` with the field and the reason."""
        try:
            if facts is None:
                line = self.plain[type(event)](event)
            else:
                user, key = (None, None) if facts.user_id is None else user_uuid(facts.user_id)
                context = self._context(facts, key)
                session = facts.session_id
                if session is None or type(session) is str:
                    line = self._functions[type(event)](event, user, session, context, facts)
                else:
                    line = None
            if line is not None:
                return line
        except (TypeError, ValueError, OverflowError, KeyError):
            pass  # no event, a lone surrogate, a number too long: the thorough way mends it or says what is wrong
        return self._thorough(event, facts or NO_FACTS)

    def _shape(self, cls: type[Event]) -> Shape:
        """Return the shape of a class; the first time its function is written too."""
        shape = self._shapes.get(cls)
        if shape is None:
            if not (isinstance(cls, type) and issubclass(cls, Event)) or cls is Event:
                if issubclass(cls, type):
                    raise InvalidEvent("a class was tracked, not an event: call it with its fields, TaskCreated(…)")
                raise InvalidEvent(
                    f"{cls.__module__}.{cls.__qualname__} is no event: track an instance of a subclass of Event"
                )
            try:
                shape = Shape(cls)
                self.plain[cls] = self._write_function(shape, "")
                self._functions[cls] = self._write_function(shape, ", user, session, context, facts")
            except (TypeError, NameError, ValueError) as error:
                raise InvalidEvent(f"the fields of {cls.__qualname__} cannot be read: {error}") from None
            self._shapes[cls] = shape
        return shape

    def _context(self, facts: Facts, user_key: str | None) -> bytes:
        """Return how a line ends: with the context, and the brace of the whole."""
        context = Context(
            facts.trace_id,
            facts.span_id,
            facts.request_id,
            self._hostname,
            self._environment,
            msgspec.UNSET if user_key is None else user_key,
        )
        return b',"context":' + _json.encode(context) + b"}"

    def _identify(self, user_id: object, facts: Facts) -> tuple[UUID, bytes]:
        user, key = user_uuid(user_id)
        return user, self._context(facts, key)

    def _write_function(self, shape: Shape, arguments: str) -> Callable[..., bytes | None]:
        """Return ``function(event[, user, session, context, facts])``: the JSON, or None when a type does not fit.

        The source is made of field names, which are identifiers, and of fixed text. A function for each class costs
        half of one that walks a list of fields.
        """
        if None in shape.checks:
            return lambda *_: None
        names: dict[str, Any] = {
            "UUID": UUID,
            "Line": _Line,
            "Row": shape.row,
            "encode": _json.encode,
            "hide": self._hide,
            "identify": self._identify,
            "new_id": self._new_id or mint,
            "now": self.clock or _now,
            "UTC": UTC,
            "TYPE": shape.event_type,
            "SERVICE": self.service,
            "NUL": _NUL,
            "PLAIN": self._plain_context,
            "facts": NO_FACTS,
        }
        body = [f"v_{f.name} = event.{f.name}" for f in shape.fields]
        if shape.checks:
            body.append("if not (" + " and ".join(check or "" for check in shape.checks) + "): return None")
        if not arguments:
            body.append("context = PLAIN")
        user = "user" if arguments else "None"
        if shape.has_user:
            body += [
                "u = event.user_id",
                "if type(u) is not UUID and not isinstance(u, UUID):",
                f"    if u is None: u = {user}",
                "    else: u, context = identify(u, facts)",
            ]
            user = "u"
        row = ", ".join(
            f"v_{f.name} if v_{f.name} is None else hide(v_{f.name})" if f.name in shape.personal else f"v_{f.name}"
            for f in shape.fields
        )
        now = "now()" if self.clock else "now(UTC)"
        session = "session" if arguments else "None"
        body += [
            # The encoder leaves up to half of its buffer behind what it returns. A copy has its exact size, and events
            # may wait for long.
            f"line = encode(Line(new_id(), TYPE, {now}, SERVICE, {user}, {session}, Row({row})))[:-1] + context",
            "if 92 in line and NUL in line: return None",  # 92 is a backslash; b'…' in line costs ten times that
            "return line",
        ]
        source = f"def function(event{arguments}):\n" + "".join(f"    {line}\n" for line in body)
        exec(compile(source, f"<encoder of {shape.event_type}>", "exec"), names)  # noqa: S102  # see the docstring
        function: Callable[..., bytes | None] = names["function"]
        return function

    def _thorough(self, event: Event, facts: Facts) -> bytes:
        """Convert, clean and validate each value; raises `InvalidEvent`."""
        shape = self._shape(type(event))
        try:
            room = Room(self._max_bytes)
            values = {f.encode_name: clean(getattr(event, f.name), f.encode_name, room) for f in shape.fields}
            row = msgspec.convert(values, shape.row)
            room = Room(self._max_bytes)
            for f in shape.fields:  # once more: a string has become what the field declares, a naive datetime maybe
                value = clean(getattr(row, f.name), f.encode_name, room)
                setattr(row, f.name, self._hidden(value) if f.name in shape.personal else value)
            user_id = getattr(event, "user_id", None) if shape.has_user else None
            user, key = None, None
            if (chosen := facts.user_id if user_id is None else user_id) is not None:
                user, key = user_uuid(chosen)
            facts = Facts(**{name: clean(getattr(facts, name), name, room) for name in Facts.__struct_fields__[1:]})
            session_id = None if facts.session_id is None else str(facts.session_id)
            line = _Line(
                (self._new_id or mint)(),
                shape.event_type,
                self.clock() if self.clock else _now(UTC),
                self.service,
                user,
                session_id,
                row,
            )
            return _json.encode(line)[:-1] + self._context(facts, key)
        except InvalidEvent:
            raise
        except RecursionError:
            raise InvalidEvent(f"{shape.event_type} is nested too deeply") from None
        except SystemError:  # msgspec before 0.22
            raise InvalidEvent(f"{shape.event_type}: a number is out of range") from None
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidEvent(f"{shape.event_type}: {said(error)}") from None

    def _hidden(self, value: Any) -> Any:
        if value is None or self._keep_personal_data:
            return value
        return self._hide(value if isinstance(value, str) else _json.encode(value).decode())


def _clock_time(now: datetime) -> datetime:
    if not isinstance(now, datetime):
        raise TypeError(f"the clock gives a {type(now).__name__}: give an aware datetime, datetime.now(UTC)")
    if now.tzinfo is None:
        raise ValueError("the clock gives a naive datetime: give it a time zone, datetime.now(UTC)")
    return exact_datetime(now.astimezone(UTC))
