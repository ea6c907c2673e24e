"""From an event to the bytes that are queued, sent and stored: one encoding from end to end.

Most events hold exactly the types they declare. For those each class gets a function, written once from its fields,
that checks the types, makes the envelope and encodes all of it in one go. Whatever does not fit takes the thorough
way: values are converted, cleaned and validated, or the event is refused with the reason.
"""

from __future__ import annotations

import types
from datetime import UTC, date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin
from uuid import UUID

import msgspec

from asgi_analytics.errors import InvalidEvent
from asgi_analytics.events.base import PERSONAL, Event, event_type_of
from asgi_analytics.events.identity import MINT_SOURCE, clean_text, mint, mint_names, personal_hash, user_uuid

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 100
"""How deep values may be nested. PostgreSQL's own parser gives up at some thousands."""

_json = msgspec.json.Encoder()
# Bound here: what freezes datetime in a test puts a class in its place whose objects cannot be encoded.
_now, _combine, _kept = datetime.now, datetime.combine, (datetime, UUID)
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


class Shape:
    """The fields of one event class: its stored row, and how to check it. Made once a class."""

    def __init__(self, cls: type[Event]) -> None:
        self.event_type = clean_text(event_type_of(cls))
        fields = msgspec.structs.fields(cls)
        self.has_user = any(field.name == "user_id" for field in fields)
        rows = [field for field in fields if field.name != "user_id"]
        self.personal = {field.name for field in rows if _is_personal(field.type)}
        for field in rows:
            if _hides_personal(msgspec.inspect.type_info(field.type)):
                raise ValueError(f"{field.name} has a Personal field inside, which only an event itself can have")
        # Required fields first: defstruct wants them so. None is the only default that may be left out of the JSON;
        # another default is a value of its own, and must not change meaning when the class does.
        rows.sort(key=lambda field: field.default is None)
        self.fields = rows
        self.row = msgspec.defstruct(
            f"{cls.__name__}Row",
            [(f.name, f.type, None) if f.default is None else (f.name, f.type) for f in rows],
            rename={f.name: f.encode_name for f in rows},
            omit_defaults=True,
            gc=False,
        )
        self.checks = [_exact_check(field.type, f"v_{field.name}") for field in rows]


def _is_personal(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    if any(isinstance(m, msgspec.Meta) and (m.extra or {}).get(PERSONAL) for m in metadata):
        return True
    return any(_is_personal(part) for part in get_args(annotation))


def _hides_personal(info: Any, inside: bool = False, seen: frozenset[Any] = frozenset()) -> bool:
    """Tell whether a type has a personal field within a structure, where nobody would hide it."""
    if isinstance(info, msgspec.inspect.Metadata) and (info.extra or {}).get(PERSONAL):
        return inside
    if isinstance(info, list | tuple):
        return any(_hides_personal(one, inside, seen) for one in info)
    if isinstance(info, msgspec.inspect.Field):
        return _hides_personal(info.type, True, seen)
    if not isinstance(info, msgspec.inspect.Type) or (cls := getattr(info, "cls", None)) in seen:
        return False
    seen = seen | {cls} if cls is not None else seen
    return any(
        _hides_personal(getattr(info, name), inside, seen)
        for name in info.__struct_fields__
        if name in ("type", "types", "item_type", "item_types", "key_type", "value_type", "fields")
    )


_EXACT = {
    UUID: "(type({v}) is UUID or isinstance({v}, UUID))",  # asyncpg has a UUID class of its own
    str: "type({v}) is str",
    int: "type({v}) is int",
    float: "(type({v}) is float or type({v}) is int)",
    bool: "type({v}) is bool",
    type(None): "{v} is None",
}


def _exact_check(annotation: Any, variable: str) -> str | None:
    """Return an expression that is true when the value is exactly of the type; None where no expression can tell."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [_exact_check(part, variable) for part in get_args(annotation)]
        return None if None in parts else "(" + " or ".join(reversed([p for p in parts if p])) + ")"
    if _is_personal(annotation) and annotation.__origin__ is str:
        annotation = str
    pattern = _EXACT.get(annotation)
    return pattern and pattern.format(v=variable)


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
    ) -> None:
        self.service = clean_text(service)
        self._hostname = hostname and clean_text(hostname)
        self._environment = environment and clean_text(environment)
        self._hide = personal_hash(hash_key, keep_personal_data)
        self._keep_personal_data = keep_personal_data
        self.clock = None if clock is None else lambda: _clock_time(clock())
        self._new_id = new_id
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
            **mint_names(),
            "UUID": UUID,
            "Line": _Line,
            "Row": shape.row,
            "encode": _json.encode,
            "hide": self._hide,
            "identify": self._identify,
            "new_id": self._new_id,
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
        body += ["event_id = new_id()"] if self._new_id else MINT_SOURCE.splitlines()
        row = ", ".join(
            f"v_{f.name} if v_{f.name} is None else hide(v_{f.name})" if f.name in shape.personal else f"v_{f.name}"
            for f in shape.fields
        )
        now = "now()" if self.clock else "now(UTC)"
        session = "session" if arguments else "None"
        body += [
            # The encoder leaves up to half of its buffer behind what it returns. A copy has its exact size, and events
            # may wait for long.
            f"line = encode(Line(event_id, TYPE, {now}, SERVICE, {user}, {session}, Row({row})))[:-1] + context",
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
            values = {f.encode_name: _clean(getattr(event, f.name), f.encode_name, 0) for f in shape.fields}
            row = msgspec.convert(values, shape.row)
            for f in shape.fields:  # once more: a string has become what the field declares, a naive datetime maybe
                value = _clean(getattr(row, f.name), f.encode_name, 0)
                setattr(row, f.name, self._hidden(value) if f.name in shape.personal else value)
            user_id = getattr(event, "user_id", None) if shape.has_user else None
            user, key = None, None
            if (chosen := facts.user_id if user_id is None else user_id) is not None:
                user, key = user_uuid(chosen)
            facts = Facts(**{name: _clean(getattr(facts, name), name, 0) for name in Facts.__struct_fields__[1:]})
            session_id = None if facts.session_id is None else str(facts.session_id)
            line = _Line(
                self._new_id() if self._new_id else mint(),
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
            raise InvalidEvent(f"{shape.event_type}: {_said(error)}") from None

    def _hidden(self, value: Any) -> Any:
        if value is None or self._keep_personal_data:
            return value
        return self._hide(value if isinstance(value, str) else _json.encode(value).decode())


def _clean(value: Any, where: str, depth: int) -> Any:
    """Return a value that JSON and PostgreSQL can hold: text cleaned, structures made of dict and list."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if value is None or kind in (bool, int, float) or isinstance(value, UUID):
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidEvent(f"{where} is a naive datetime: give it a time zone, datetime.now(UTC)")
        return value if kind is datetime else _exact_datetime(value)
    if depth >= MAX_DEPTH:
        raise InvalidEvent(f"{where} is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_clean_key(key, where): _clean(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, where, depth + 1) for item in value]
    if isinstance(value, Enum):
        return _clean(value.value, where, depth + 1)
    # Text, numbers and dates with a class of their own (numpy's, markupsafe's, freezegun's) are what they are.
    if isinstance(value, str):
        return clean_text(str.__str__(value))
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, date):
        return value.isoformat()
    # Decimals, bytes, times, structs, dataclasses, attrs: as msgspec writes them, one level, then look again.
    try:
        converted = msgspec.to_builtins(value, builtin_types=_kept, str_keys=True)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(f"{where}: {_said(error)}") from None
    return _clean(converted, where, depth + 1)


def _clean_key(key: Any, where: str) -> str:
    if isinstance(key, str) and not isinstance(key, Enum):
        return clean_text(str.__str__(key))
    plain = msgspec.to_builtins({key: None}, str_keys=True)
    return clean_text(next(iter(plain)))


def _exact_datetime(value: datetime) -> datetime:
    return _combine(value.date(), value.timetz())


def _clock_time(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError("the clock gives a naive datetime: give it a time zone, datetime.now(UTC)")
    return _exact_datetime(now.astimezone(UTC))


def _said(error: Exception) -> str:
    """Return the message of a refusal, without the values that some of them quote."""
    if isinstance(error, UnicodeError):
        return "text that cannot be encoded"
    if isinstance(error, msgspec.ValidationError):
        what, _, where = str(error).partition(" - at ")
        what = what if what.startswith(("Expected", "Object missing")) else "a value is refused"
        return f"{what} at {where}" if where else what
    return str(error)
