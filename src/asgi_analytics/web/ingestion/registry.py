"""The schemas of the registry: compiled, and read again when they have changed."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.errors import MissingExtra, OperatorError
from asgi_analytics.log import failure, log_problem
from asgi_analytics.sinks.base import KnowsSchemas, StoredSchema
from asgi_analytics.web.ingestion.refusal import Invalid

try:
    import jsonschema_rs
except ImportError:  # only who checks events by a registry needs it
    jsonschema_rs = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EVERY_SECONDS = 60.0
"""Seconds after which the service looks whether a schema has changed."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_EXPECTED = {"boolean": "bool", "integer": "int", "number": "float", "string": "str"}
_REASONS = {
    "format": "not a valid {format}",
    "enum": "invalid enum value",
    "const": "invalid enum value",
    "pattern": "does not match the pattern",
    "anyOf": "none of the types that are allowed",
    "additionalProperties": "unknown field",
    "unevaluatedProperties": "unknown field",
}
_FORMATS = {"uuid": "not a UUID", "date-time": "not a timestamp"}
_RANGES = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})


class RegisteredType:
    """How the data of a type of the registry are checked. Raises `ValueError` for a schema that is none.

    A schema is somebody's input: it can refer to nothing outside of itself, and its patterns take linear time.
    """

    has_user = False

    def __init__(self, stored: StoredSchema) -> None:
        if jsonschema_rs is None:
            raise MissingExtra("jsonschema-rs", "schemas")
        self.event_type = stored.event_type
        self.needs_user = stored.needs_user
        self._validator = jsonschema_rs.validator_for(
            json.loads(stored.definition),
            validate_formats=True,
            retriever=_refuse,
            pattern_options=jsonschema_rs.RegexOptions(),
        )

    def decode_exact(self, data: msgspec.Raw) -> None:
        """Raise `KeyError` for data that break the schema, or that hold the user."""
        found = _decode(data)
        if "user_id" in found or not self._validator.is_valid(found):
            raise KeyError

    def decode(self, data: msgspec.Raw) -> None:
        """Raise `Invalid` with the field for data that break the schema; no value is in it."""
        for error in self._validator.iter_errors(_decode(data)):
            raise _explained(error)


def _refuse(uri: str) -> Any:
    raise ValueError("a schema cannot refer to another document")


def _explained(error: Any) -> Invalid:
    path = "data"
    for step in error.instance_path:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    kind = error.kind
    name = str(error.schema_path[-1])
    if name == "required":
        return Invalid("missing", f"{path}.{kind.property}")
    if name == "type":
        expected = [_EXPECTED.get(one, one) for one in kind.types]
        return Invalid(f"expected {' or '.join(sorted(expected))}", path)
    if name == "format":
        return Invalid(_FORMATS.get(kind.format, f"not a valid {kind.format}"), path)
    if name in _RANGES:
        return Invalid("number out of range", path)
    return Invalid(_REASONS.get(name, f"breaks the rule {name} of its schema"), path)


def compiled(schemas: Iterable[StoredSchema]) -> dict[str, RegisteredType]:
    """Return how each type is checked; one whose schema cannot be used is left out, and logged.

    Raises `MissingExtra` if there are schemas and jsonschema-rs is not installed.
    """
    found = {}
    for one in schemas:
        try:
            found[one.event_type] = RegisteredType(one)
        except MissingExtra:
            raise
        except Exception as error:
            reason = type(error).__name__
            log_problem(("registry", one.event_type), "the schema of %s cannot be used: %s", one.event_type, reason)
    return found


class Registry:
    """The schemas of a sink's registry. Nothing is read before the first `current`."""

    def __init__(self, sink: object) -> None:
        self._sink = sink if isinstance(sink, KnowsSchemas) else None
        self._known: dict[str, RegisteredType] = {}
        self._fingerprint: str | None = None
        self._due = 0.0

    async def current(self) -> Mapping[str, RegisteredType]:
        """Return how the types of the registry are checked; looks once a minute whether a schema has changed.

        If that fails, what was known goes on. Raises `SinkError` if nothing was ever read because the database is away.
        """
        if self._sink is None or time.monotonic() < self._due:
            return self._known
        if self._fingerprint is not None:
            self._due = time.monotonic() + EVERY_SECONDS  # who comes meanwhile goes on with what is known
        try:
            fingerprint = await self._sink.schemas_fingerprint()
            if fingerprint != self._fingerprint:
                self._known = compiled(await self._sink.active_schemas())
                self._fingerprint = fingerprint
        except (MissingExtra, OperatorError) as error:  # an older schema of the database, perhaps
            self._fingerprint = self._fingerprint or ""
            log_problem(
                (self, "registry"), "the schemas of events are not used: %s", failure(error), level=logging.ERROR
            )
        except Exception as error:
            if self._fingerprint is None:
                raise
            log_problem((self, "registry"), "the schemas of events were not read again: %s", failure(error))
        self._due = time.monotonic() + EVERY_SECONDS
        return self._known
