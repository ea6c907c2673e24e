"""The JSON Schema of an event class, and what a change of it breaks."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.encoding.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asgi_analytics.events.base import Event

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NOTES = frozenset({"title", "description", "default", "examples", "$comment", "x-personal"})
"""Keywords that say nothing about what is valid."""
SAMPLES = {
    "uuid": "0198c0de-0000-7000-8000-000000000001",
    "date-time": "2026-11-20T12:00:00Z",
    "date": "2026-11-20",
    "time": "12:00:00Z",
    "duration": "PT1S",
}
DEEPEST = 20
"""Levels of structures within structures that are compared; a structure that contains itself has no end."""


def definition(cls: type[Event]) -> dict[str, Any]:
    """Return what the stored ``data`` of a class look like, as JSON Schema (2020-12), without its ``user_id``.

    Fields that have a default are optional. Raises `TypeError` or `ValueError` for a class that cannot be stored.
    """
    shape = Shape(cls)
    row = msgspec.defstruct(
        cls.__name__,
        [(f.name, f.type) if f.required else (f.name, f.type, None) for f in shape.fields],
        rename={f.name: f.encode_name for f in shape.fields},
        kw_only=True,
    )
    made = msgspec.json.schema(row)
    parts = made["$defs"]
    own = parts.pop(made["$ref"].rpartition("/")[2])
    for field in shape.fields:
        told = own["properties"][field.encode_name]
        if "default" in told and told["default"] is None:
            del told["default"]
        if field.name in shape.personal:
            told["x-personal"] = True
    text = cls.__dict__.get("__doc__")
    return {
        "$schema": DIALECT,
        **own,
        **({"description": inspect.cleandoc(text)} if text else {}),
        **({"$defs": parts} if parts else {}),
    }


def required_fields(cls: type[Event]) -> list[str]:
    """Return the names of the fields that every event of a class has, the user of the envelope among them."""
    return sorted(field.encode_name for field in msgspec.structs.fields(cls) if field.required)


def example(schema: Mapping[str, Any]) -> Any:
    """Return a value that has the types that a schema demands; it may break its other rules."""
    return _example(schema, schema.get("$defs", {}), 0)


def _example(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int) -> Any:
    schema = _resolved(schema, parts)
    if depth > DEEPEST:
        return None
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if word in schema:
            some = [one for one in schema[word] if one.get("type") != "null"]
            return _example(some[0], parts, depth + 1) if some else None
    kind = schema.get("type")
    if kind == "object":
        inner = schema.get("properties", {})
        return {name: _example(inner[name], parts, depth + 1) for name in schema.get("required", ()) if name in inner}
    if kind == "array":
        number = max(int(schema.get("minItems", 0)), min(1, int(schema.get("maxItems", 1))))
        items = schema.get("items", {})
        first = schema.get("prefixItems", [])
        return [_example(one, parts, depth + 1) for one in [*first, *[items] * (number - len(first))]]
    if kind in ("integer", "number"):
        return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    if kind == "string":
        text = SAMPLES.get(schema.get("format", ""), "text")
        return text.ljust(int(schema.get("minLength", 0)), ".")[: int(schema.get("maxLength", 1000))]
    return {"boolean": True}.get(str(kind))


def is_same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether two schemas take the same values, as far as they are written alike."""
    return bool(_bare(old) == _bare(new))


def breaking(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what breaks a sender or a reader of the old schema: a removed field, a new required one, another type."""
    return list(_broken(old, new, old.get("$defs", {}), new.get("$defs", {}), "", 0))


def _broken(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    old_parts: Mapping[str, Any],
    new_parts: Mapping[str, Any],
    path: str,
    depth: int,
) -> Iterator[str]:
    if depth > DEEPEST:
        return
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        field = f"{path}{name}"
        if name not in after:
            yield f"the field {field} is removed"
            continue
        was, now = _alternatives(before[name], old_parts), _alternatives(after[name], new_parts)
        for one in was:
            if any(_is_alike(one, other, old_parts, new_parts, depth) for other in now):
                continue
            inner = [other for other in now if _is_structure(one) and _is_structure(other)]
            if len(inner) == 1:
                yield from _broken(one, inner[0], old_parts, new_parts, f"{field}.", depth + 1)
            else:
                yield f"the field {field} has another type"
                break
    had = set(old.get("required", ()))
    for name in new.get("required", ()):
        if name not in had:
            yield f"the field {path}{name} is required now"


def _is_structure(schema: Mapping[str, Any]) -> bool:
    return "properties" in schema


def _is_alike(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    parts: Mapping[str, Any],
    other_parts: Mapping[str, Any],
    depth: int,
) -> bool:
    if depth > DEEPEST:
        return True
    one, other = _resolved(one, parts), _resolved(other, other_parts)
    if {key for key in one if key not in NOTES} != {key for key in other if key not in NOTES}:
        return False
    return all(_is_alike_value(one[key], other[key], parts, other_parts, depth + 1) for key in one if key not in NOTES)


def _is_alike_value(one: Any, other: Any, parts: Mapping[str, Any], other_parts: Mapping[str, Any], depth: int) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return _is_alike(one, other, parts, other_parts, depth)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            _is_alike_value(a, b, parts, other_parts, depth) for a, b in zip(one, other, strict=True)
        )
    return bool(one == other)


def _alternatives(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_resolved(one, parts) for one in _resolved(schema, parts).get("anyOf", [schema])]


def _resolved(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(DEEPEST):
        if "$ref" not in schema:
            break
        schema = parts.get(str(schema["$ref"]).rpartition("/")[2], {})
    return schema


def _bare(value: Any, is_schema: bool = True) -> Any:
    """Return a schema without its notes. What stands below ``properties`` and ``$defs`` are names, not keywords."""
    if isinstance(value, dict):
        return {
            key: _bare(one, not (is_schema and key in ("properties", "$defs")))
            for key, one in value.items()
            if not (is_schema and key in NOTES)
        }
    if isinstance(value, list):
        return [_bare(one) for one in value]
    return value
