"""Which elements are stored and which are refused: each is checked against the envelope and against its event type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec

from asgi_analytics.encoding.metric_record import MAX_NAME, MAX_TAG_TEXT, MAX_TAGS
from asgi_analytics.encoding.shape import UNREADABLE, Shape
from asgi_analytics.encoding.users import user_uuid
from asgi_analytics.encoding.values import MAX_DEPTH
from asgi_analytics.events.base import METRIC, event_class, event_type_of, event_types
from asgi_analytics.events.named import NAMED, dotted_tag
from asgi_analytics.log import log_problem
from asgi_analytics.sinks.base import Rejected
from asgi_analytics.web.ingestion.elements import depth_exceeds
from asgi_analytics.web.ingestion.refusal import Invalid, explained
from asgi_analytics.web.ingestion.registry import RegisteredType
from asgi_analytics.web.ingestion.retention import USUAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asgi_analytics.events.base import Event

MAX_AHEAD = timedelta(hours=24)
"""How far in the future an event may be, by the clock of this machine."""

_MOST_NAMES = 1_000
"""How many unknown types are remembered as unknown. Senders choose the names, so there must be a limit."""

_TOGETHER = 50
"""How many elements are checked at once. If one of them needs a closer look, all of them get it."""

_LONG = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_AWARE = Annotated[datetime, msgspec.Meta(tz=True)]
_TagText = Annotated[str, msgspec.Meta(max_length=MAX_TAG_TEXT)]


class _Object(msgspec.Struct, gc=False):
    """Any JSON object."""


class _Nothing:
    """Matches no JSON value: a field of this type must be absent."""


class _Exact(msgspec.Struct, gc=False):
    """An envelope that can be stored unchanged."""

    event_id: UUID
    event_type: str
    timestamp: _AWARE
    service: str
    data: msgspec.Raw
    user_id: UUID | msgspec.UnsetType | None = msgspec.UNSET
    session_id: str | None = None
    context: _Object | None = None


class _Loose(msgspec.Struct):
    """An envelope that may have to be changed and encoded again."""

    event_id: UUID
    event_type: str
    timestamp: _AWARE
    service: str
    data: msgspec.Raw
    user_id: str | int | msgspec.UnsetType | None = msgspec.UNSET
    session_id: str | None = None
    context: dict[str, msgspec.Raw] | None = None


_encode = msgspec.json.Encoder().encode
_decode_exact = msgspec.json.Decoder(list[_Exact]).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode
_decode_object = msgspec.json.Decoder(_Object).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Known:
    """How the data of a known event type is checked."""

    def __init__(self, cls: type[Event]) -> None:
        shape = Shape(cls)
        self.event_type = event_type_of(cls)
        self.has_user = shape.has_user
        self.needs_user = shape.has_user and "user_id" in {
            field.name for field in msgspec.structs.fields(cls) if field.required
        }
        # Only whether a field is required matters: nothing is filled in, the bytes are stored unchanged.
        fields: list[Any] = [
            (f.name, _storable(f.type)) if f.required else (f.name, _storable(f.type), None) for f in shape.fields
        ]
        names = {f.name: f.encode_name for f in shape.fields}

        def decoder(user_id: Any) -> Callable[[msgspec.Raw], Any]:
            more = [("user_id", user_id, msgspec.UNSET)] if shape.has_user else []
            row = msgspec.defstruct(f"{cls.__name__}Data", [*fields, *more], rename=names, kw_only=True, gc=False)
            return msgspec.json.Decoder(row).decode

        # The user belongs to the envelope. If it stands in data, the event is not exact, and the user is lifted out.
        self.decode_exact, self.decode = decoder(_Nothing), decoder(Any)


class _MetricData(msgspec.Struct, gc=False):
    """What a metric holds, by type; the table has the rules for its numbers."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    metric_type: Literal["counter", "gauge", "histogram", "timer"]
    count: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    sum: float
    min: float
    max: float
    last: float
    unit: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] | None = None
    tags: Annotated[dict[str, _TagText | _LONG | bool], msgspec.Meta(max_length=MAX_TAGS)] | None = None
    bins: list[Annotated[int, msgspec.Meta(gt=-40_000, lt=40_000)]] | None = None
    counts: list[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]] | None = None


class _Metric(_Known):
    """How the data of a metric is checked."""

    event_type = METRIC
    has_user = needs_user = False

    def __init__(self) -> None:
        self.decode_exact = self.decode = msgspec.json.Decoder(_MetricData).decode


class _Unknown:
    """How the data of any other event type is checked: it must be an object."""

    has_user = needs_user = False
    decode_exact = decode = staticmethod(_decode_object)


_UNKNOWN = _Unknown()


def _storable(annotation: Any) -> Any:
    """Return the type with whole numbers limited to 64 bits, since the views compute with them."""
    if annotation is int:
        return _LONG
    if get_origin(annotation) is UnionType or type(annotation) is UnionType:
        parts = [_storable(part) for part in get_args(annotation)]
        union: Any = parts[0]
        for part in parts[1:]:
            union |= part
        return union
    return annotation


class Validator:
    """Check batches: known types by their fields; others are stored unchanged.

    If ``strict_types``, others are checked by the schemas of a registry, see `use`, and refused if they have none.
    ``retention`` is how old events of each type may be, and under None those of all others; see `keep`.
    """

    def __init__(
        self,
        *,
        strict_types: bool = False,
        retention: Mapping[str | None, timedelta] = USUAL,
        max_ahead: timedelta = MAX_AHEAD,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.strict_types = strict_types
        self.keep(retention)
        self.max_ahead = max_ahead
        self._clock = clock or (lambda: datetime.now(UTC))
        self._types: dict[str, type[Event]] = {}
        self._known: dict[str, _Known | _Unknown | RegisteredType] = {}
        self._registered: Mapping[str, RegisteredType] = {}

    def keep(self, retention: Mapping[str | None, timedelta]) -> None:
        """Refuse from now on what is older than this."""
        self._retention = retention
        self._shortest = min(retention.values())

    def use(self, registered: Mapping[str, RegisteredType]) -> None:
        """Check types that have no class by these schemas from now on, if ``strict_types``."""
        if registered is not self._registered:
            self._registered = registered
            self._known.clear()

    def check(self, lines: Sequence[bytes | None]) -> tuple[list[bytes], list[int], list[Rejected]]:
        """Return the lines to store, their places in the batch, and what is refused."""
        now = self._clock()
        newest = now + self.max_ahead
        self._follow_types()
        good: list[bytes] = []
        places: list[int] = []
        refused: list[Rejected] = []
        for start in range(0, len(lines), _TOGETHER):
            part = lines[start : start + _TOGETHER]
            if self._are_exact(part, now - self._shortest, newest):  # nearly always
                good += part  # type: ignore[arg-type]  # None is not exact
                places += range(start, start + len(part))
                continue
            for place, line in enumerate(part, start):
                try:
                    good.append(self._checked(line, now, newest))
                    places.append(place)
                except Invalid as error:
                    refused.append(Rejected(place, error.reason, error.field))
        return good, places, refused

    def _are_exact(self, lines: Sequence[bytes | None], oldest: datetime, newest: datetime) -> bool:
        """Tell whether all lines can be stored unchanged; False if that is not clear at once."""
        if None in lines:
            return False
        array = b"[%b]" % b",".join(lines)  # type: ignore[arg-type]  # see above
        try:
            events = _decode_exact(array)
            times = [event.timestamp for event in events]
            if not (
                len(events) == len(lines)  # what was split by counting brackets may not be JSON
                and oldest <= min(times)
                and max(times) <= newest
                and "" not in {event.service.strip() for event in events}
            ):
                return False
            for event in events:
                types = self._known.get(event.event_type) or self._exact_type(event.event_type)
                types.decode_exact(event.data)
                if event.user_id is msgspec.UNSET and types.needs_user:
                    return False
        except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        # With so few brackets no event can be nested too deeply: each has at least two.
        brackets = array.count(b"{") + (array.count(b"[") if array.find(b"[", 1) > 0 else 0)
        return brackets - 2 * (len(lines) - 1) <= MAX_DEPTH or not any(
            depth_exceeds(line, MAX_DEPTH)  # type: ignore[arg-type]  # see above
            for line in lines
        )

    def _checked(self, line: bytes | None, now: datetime, newest: datetime) -> bytes:
        """Return the line, changed if necessary; raises `Invalid` with the reason and the field."""
        if line is None:
            raise Invalid("not UTF-8")
        if depth_exceeds(line, MAX_DEPTH):
            raise Invalid(f"nested deeper than {MAX_DEPTH} levels")
        try:
            event = _decode_loose(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise explained(error, "") from None
        for name in ("event_type", "service"):
            if not getattr(event, name).strip():
                raise Invalid("empty", name)
        if event.timestamp > newest:
            raise Invalid(f"more than {_span(self.max_ahead)} ahead", "timestamp")
        types = self._type(event.event_type)
        dotted = types is None and dotted_tag(event.event_type)
        if dotted:  # project.created is project_created
            event.event_type = dotted
            types = self._type(dotted)
        name = event.event_type if types is None else types.event_type
        kept = self._retention.get(name, self._retention[None])
        if event.timestamp < now - kept:
            raise Invalid(f"older than {_span(kept)}", "timestamp")
        if types is None and self.strict_types and event.event_type not in NAMED:
            raise Invalid("unknown event type", "event_type")
        try:
            data = (_decode_object if types is None else types.decode)(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise explained(error, "data") from None
        return self._changed(line, event, types, data, changed=bool(dotted))

    def _changed(
        self, line: bytes, event: _Loose, types: _Known | RegisteredType | None, data: Any, changed: bool
    ) -> bytes:
        if types is not None and event.event_type != types.event_type:
            event.event_type, changed = types.event_type, True
        if types is not None and types.has_user and data.user_id is not msgspec.UNSET:
            fields = _decode_fields(event.data)
            del fields["user_id"]
            event.data, changed = msgspec.Raw(_encode(fields)), True
            if event.user_id is msgspec.UNSET or event.user_id is None:
                event.user_id = data.user_id
        if event.user_id is msgspec.UNSET:
            # Null is what track() sends if no user is known; a missing user was forgotten.
            if types is not None and types.needs_user:
                raise Invalid("missing", "user_id")
            event.user_id = None
        elif event.user_id is not None:
            try:
                user, key = user_uuid(event.user_id)
            except TypeError:
                raise Invalid("expected str, got another type", "user_id") from None
            if key is not None:
                event.context = (event.context or {}) | {"user_key": msgspec.Raw(_encode(key))}
                changed = True
            event.user_id = str(user)
        return _encode(event) if changed else line

    def _exact_type(self, name: str) -> _Known | _Unknown | RegisteredType:
        """Return how to check an event of this type that is stored unchanged; raises KeyError if it cannot be."""
        types = self._type(name)
        if isinstance(types, RegisteredType):
            self._known[name] = types
        if types is None and dotted_tag(name):
            raise KeyError(name)
        if types is None and name.strip() and (name in NAMED or not self.strict_types):
            if len(self._known) < _MOST_NAMES:
                self._known[name] = _UNKNOWN
            return _UNKNOWN
        if types is None or types.event_type != name:
            raise KeyError(name)
        return types

    def _type(self, name: str) -> _Known | RegisteredType | None:
        """Return how to check a type that has a class, or in strict mode a schema."""
        return self._known_type(name) or (self._registered.get(name) if self.strict_types else None)

    def _known_type(self, name: str) -> _Known | None:
        types = self._known.get(name)
        if types is None and name == METRIC:
            types = self._known[name] = _Metric()
        elif types is None and (cls := event_class(name)) is not None:
            try:
                types = _Known(cls)
            except UNREADABLE as error:
                what = f"{cls.__module__}.{cls.__qualname__}"
                text = "the fields of %s cannot be read: its events are unchecked: %s"
                log_problem(("class", what), text, what, error)
                return None
            if types.event_type == name:  # a class name is not a tag: an event that has one is changed
                self._known[name] = types
        return types if isinstance(types, _Known) else None

    def _follow_types(self) -> None:
        """Forget the known types if one was defined or replaced since the last batch."""
        if (types := event_types()) != self._types:
            self._types = types
            self._known.clear()


def _span(span: timedelta) -> str:
    hours = round(span.total_seconds() / 3600)
    return f"{hours // 24} days" if hours % 24 == 0 and hours > 24 else f"{hours} h"
