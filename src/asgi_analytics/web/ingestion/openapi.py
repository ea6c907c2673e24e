"""The OpenAPI description of the ingestion service, with the limits that it runs with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_EVENT = """\
One event. Each element is checked by itself. One that is refused is named by its index, with one of these reasons:

- `not an object`, `not UTF-8`, `not JSON`, `nested deeper than 100 levels`
- `missing`, `empty`, `expected … got …`, `not a UUID`, `not a timestamp`, `no time zone`, `number out of range`,
  `invalid value` and the like, with the field: `event_id`, or `data.task_id` for one inside `data`
- `more than 24 h ahead`; `older than 90 days`, or for how long else rows of the type are kept (timestamp)
- `unknown event type`, if the service accepts only types that have a class or a schema
- the reason of the database, such as `check_violation analytics_events_timestamp_check`; the event is then kept as a
  dead letter

What may differ from the stored form: `event_type` may be a class name (`TaskCreated`); `user_id` may be any string or
integer, which is mapped to a UUID (version 5) with the original in `context.user_key`; for a known type that has a
user, `user_id` may stand in `data` and is lifted out, unless the envelope has one. If a known type requires a user,
`user_id` must be present, and is null if no user is known. NUL and lone surrogates become U+FFFD. Other fields of the
envelope are ignored; those of `data` and `context` are stored unchanged. If a key occurs twice, the last one counts,
and all of them are checked.
"""

_BATCH = """\
Stores a batch of events. The answer follows the commit, so 200 means stored. Except for what is rejected, the batch is
stored as a whole or not at all. Sending a batch again stores nothing twice: `event_id` and `timestamp` together
identify an event.

The body is a JSON array in UTF-8 (a byte order mark is ignored), uncompressed or gzip. An empty array is answered with
zeros. Without a Content-Type the body is taken as JSON, unless the request comes from a browser.

The header `Analytics-Event-Types: order_paid=transaction` may say of which category types are that the service has no
class of, so that their rows are kept as long as that category's.
"""


def describe(
    *, version: str, server: str, max_body_bytes: int, max_events: int, body_timeout: float, requires_token: bool
) -> dict[str, Any]:
    """Return the document, OpenAPI 3.1."""
    refusals = {
        "400": "Not a JSON array, or broken compression.",
        "408": f"The body took longer than {body_timeout:g} seconds to arrive.",
        "413": f"More than {max_body_bytes} bytes (uncompressed) or {max_events} events: send smaller batches.",
        "415": "A Content-Type that is not JSON, or an unknown Content-Encoding.",
    }
    if requires_token:
        refusals["401"] = "No token, or one that is not accepted."
    responses: dict[str, Any] = {status: _problem(text) for status, text in refusals.items()}
    if requires_token:
        responses["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    for status, text in (
        ("500", "The database write failed and nothing of the batch is stored: send it again."),
        ("503", "Too many batches are waiting here: send it again."),
    ):
        responses[status] = _problem(text)
        responses[status]["headers"] = {
            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}, "required": True}
        }
    result = {"$ref": "#/components/schemas/Result"}
    responses["200"] = _json("Stored, except for what is rejected.", result)
    responses["422"] = _json("Every event is invalid; nothing is stored.", result)
    batch: dict[str, Any] = {
        "operationId": "store_batch",
        "summary": "Store a batch of events",
        "description": _BATCH,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "array",
                        "maxItems": max_events,
                        "items": {"$ref": "#/components/schemas/Event"},
                    }
                }
            },
        },
        "responses": dict(sorted(responses.items())),
    }
    if requires_token:
        batch["security"] = [{"token": []}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asgi-analytics ingestion",
            "version": version,
            "description": "Takes analytics events over HTTP and stores them in TimescaleDB or PostgreSQL.",
        },
        "servers": [{"url": server}],
        "paths": {
            "/health": {"get": _probe("health", "Tell that the process runs", {"200": "It runs."})},
            "/ready": {
                "get": _probe(
                    "ready",
                    "Tell whether a batch could be stored now",
                    {"200": "The database answers.", "503": "It does not, or lacks the tables or the rights."},
                )
            },
            "/events/batch": {"post": batch},
        },
        "components": {
            "schemas": {"Event": _event(), "Result": _result(), "Problem": _problem_schema()},
            **({"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if requires_token else {}),
        },
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}


def _probe(name: str, summary: str, answers: dict[str, str]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, description in answers.items():
        if status == "200":
            status_schema = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
            responses[status] = _json(description, status_schema)
        else:
            responses[status] = _problem(description)
    return {"operationId": name, "summary": summary, "responses": responses}


def _object(required: Iterable[str], properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties, **more}


def _event() -> dict[str, Any]:
    return _object(
        ("event_id", "event_type", "timestamp", "service", "data"),
        {
            "event_id": {"type": "string", "format": "uuid"},
            "event_type": {"type": "string", "minLength": 1, "examples": ["task_created"]},
            "timestamp": {"type": "string", "format": "date-time", "description": "RFC 3339, with a time zone."},
            "service": {"type": "string", "minLength": 1},
            "user_id": {"type": ["string", "integer", "null"]},
            "session_id": {"type": ["string", "null"]},
            "data": {"type": "object"},
            "context": {"type": ["object", "null"]},
        },
        description=_EVENT,
        examples=[
            {
                "event_id": "01990f3a-5d5c-7cc1-b2ab-2b5a4d3c6f10",
                "event_type": "order_placed",
                "timestamp": "2026-11-20T12:00:00.123456Z",
                "service": "shop",
                "user_id": "2b1f8f7c-6d1e-4a53-9f57-0b6f6a1d8e21",
                "session_id": None,
                "data": {"order_id": 17, "total": 9.5},
                "context": {"hostname": "web-1", "environment": "production"},
            }
        ],
    )


def _result() -> dict[str, Any]:
    count = {"type": "integer", "minimum": 0}
    rejected = _object(
        ("index", "reason", "field"),
        {
            "index": {**count, "description": "Its place in the batch, from 0."},
            "reason": {"type": "string"},
            "field": {"type": ["string", "null"], "description": "The field that was refused, if a single one was."},
        },
    )
    return _object(
        ("received", "duplicates", "rejected"),
        {
            "received": {**count, "description": "How many events are stored now, duplicates included."},
            "duplicates": {**count, "description": "How many of them were stored before, or occur twice in the batch."},
            "rejected": {"type": "array", "items": rejected, "description": "In the order of the batch."},
        },
    )


def _problem_schema() -> dict[str, Any]:
    return _object(
        ("title", "status", "detail"),
        {"title": {"type": "string"}, "status": {"type": "integer"}, "detail": {"type": "string"}},
        description="RFC 9457.",
    )
