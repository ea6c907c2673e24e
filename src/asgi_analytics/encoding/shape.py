"""The fields of an event class: the row that is stored of them, and how exact values are told from others."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin
from uuid import UUID

import msgspec

from asgi_analytics.encoding.text import clean_text
from asgi_analytics.events.base import PERSONAL, Event, event_type_of

if TYPE_CHECKING:
    from collections.abc import Callable


UNREADABLE = (TypeError, ValueError, NameError)
"""What a class raises whose fields cannot be read; the last if an annotation names what is not there."""


class Shape:
    """The fields of one event class: its stored row, and how to check it. Made once a class.

    Raises one of `UNREADABLE`.
    """

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
        self.exact_row = self._write_exact_row()
        """Returns the row of an event, or None if a value is not exactly of its declared type."""

    def _write_exact_row(self) -> Callable[[Any], Any]:
        """Write the function: ``def exact_row(event)`` checks each field, as one would by hand, and makes the row.

        The source is made of field names, which are identifiers, and of fixed text. To walk a list of fields would
        take twice as long, for every event that is tracked.
        """
        checks = [_exact_check(field.type, f"event.{field.name}") for field in self.fields]
        if None in checks:
            return lambda event: None
        values = ", ".join(f"event.{field.name}" for field in self.fields)
        condition = " and ".join(check for check in checks if check) or "True"
        source = f"def exact_row(event):\n    return Row({values}) if {condition} else None\n"
        names: dict[str, Any] = {"UUID": UUID, "Row": self.row}
        exec(compile(source, f"<row of {self.event_type}>", "exec"), names)  # noqa: S102  # see the docstring
        return names["exact_row"]  # type: ignore[no-any-return]


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
