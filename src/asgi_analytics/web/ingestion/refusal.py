"""Why an element is refused: a short, stable reason, and the field; never a value of the element."""

from __future__ import annotations

import re


class Invalid(Exception):
    """An element is refused; ``reason`` is short and stable, and holds nothing of the element."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


_AT = re.compile(r" - at `(?:key in )?\$?(.*)`$")
_REASONS = (
    (r"Object missing required field", "missing"),
    (r"Expected `datetime` with a timezone", "no time zone"),
    (r"Expected `(?:int|float)` [<>]|Number out of range|Integer value out of range", "number out of range"),
    (r"Invalid UUID", "not a UUID"),
    (r"Invalid RFC3339", "not a timestamp"),
    (r"Invalid enum", "invalid enum value"),
    (r"JSON is malformed|Input data was truncated", "not JSON"),
)


def explained(error: Exception, prefix: str) -> Invalid:
    """Return what is wrong according to msgspec, below ``prefix``; the message of msgspec holds no value."""
    said = str(error)
    found = _AT.search(said)
    path = (found[1] if found else "").lstrip(".")
    if isinstance(error, UnicodeDecodeError):
        return Invalid("not UTF-8")
    if missing := re.match(r"Object missing required field `([^`]*)`", said):
        path = f"{path}.{missing[1]}" if path else missing[1]
    where = f"{prefix}.{path}" if prefix and path and not path.startswith("[") else prefix + path
    for pattern, reason in _REASONS:
        if re.match(pattern, said):
            return Invalid(reason, where or None)
    if types := re.match(r"Expected `([^`]*)`, got `([^`]*)`", said):
        if not where and types[1] == "object":
            return Invalid("not an object")
        return Invalid(f"expected {types[1].replace(' | ', ' or ')}, got {types[2]}", where or None)
    return Invalid("invalid value", where or None)
