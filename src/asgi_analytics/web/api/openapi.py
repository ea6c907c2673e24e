"""The OpenAPI description of the API: it follows from the signatures of the questions and the structs they return."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics._version import __version__
from asgi_analytics.reading.reader import Meta
from asgi_analytics.web.api.formats import MEDIA_TYPES
from asgi_analytics.web.api.parameters import FORMATS, Parameter, Parameters
from asgi_analytics.web.api.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asgi_analytics.reading import Question

REFERENCE = "#/components/schemas/{name}"

WORDS = {
    "start_date": "The start of the range: a local day, or a date and time with its offset (write + as %2B).",
    "end_date": "The end of the range: a local day, which is included, or a date and time, which is not.",
    "timezone": "The IANA name of the time zone whose days are meant.",
    "service": "Only what this service has sent.",
    "environment": "Only what comes from this environment.",
    "limit": "The most rows.",
    "cursor": "The next of the page before.",
    "format": "json, or all rows as csv or ndjson. Texts in CSV that a spreadsheet would calculate begin with '.",
}

REFUSALS = {
    "401": "No token, or one that is not accepted.",
    "403": "Nothing can be changed here: the service has no token for it.",
    "404": "There is nothing at this path.",
    "413": "The body is too long.",
    "414": "The path and the parameters are too long.",
    "422": "A parameter is unknown, doubled or wrong; field names it.",
    "500": "Something failed here.",
    "503": "The database cannot answer now, or too many questions are being asked: ask again.",
    "504": "The database took too long: narrow the range.",
}

PROBES = {
    "/health": ("Tell that the process runs", {"200": "It runs."}),
    "/ready": (
        "Tell whether questions can be answered now",
        {"200": "The database answers.", "503": "It does not, or lacks the tables or the rights."},
    ),
}


def describe(questions: Iterable[Question], *, server: str, requires_token: bool) -> dict[str, Any]:
    """Return the document, OpenAPI 3.1."""
    asked = list(questions)
    given = [one for question in asked for one in Parameters(question).known.values() if one.has_schema]
    kinds = [Meta, Refused, *(one.types["return"] for one in asked), *(one.kind for one in given)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    meta, _, *rest = schemas
    results, parameters = rest[: len(asked)], rest[len(asked) :]
    of_type = {one.kind: schema for one, schema in zip(given, parameters, strict=True)}
    paths: dict[str, Any] = {path: {"get": _probe(path, *known)} for path, known in PROBES.items()}
    for question, result in zip(asked, results, strict=True):
        described = _question(question, result, meta, of_type, requires_token or question.changes)
        paths.setdefault(question.path, {})[question.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asgi-analytics",
            "version": __version__,
            "description": "Answers questions about the analytics events in TimescaleDB or PostgreSQL.",
        },
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _question(
    question: Question,
    result: dict[str, Any],
    meta: dict[str, Any],
    of_type: Mapping[Any, dict[str, Any]],
    requires_token: bool,
) -> dict[str, Any]:
    parameters = [_parameter(one, of_type) for one in Parameters(question).known.values()]
    inside = [one for one in parameters if question.method != "POST" or one["in"] == "path"]
    described: dict[str, Any] = {
        "operationId": question.name,
        "summary": question.definition.removesuffix("."),
        "parameters": [*inside, _format(question)],
        "responses": _responses(question, result, meta, requires_token),
    }
    if question.method == "POST":
        body = [one for one in parameters if one["in"] != "path"]
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": _body(body)}}}
    if requires_token:
        described["security"] = [{"token": []}]
    return described


def _responses(
    question: Question, result: dict[str, Any], meta: dict[str, Any], requires_token: bool
) -> dict[str, Any]:
    answer = result
    if not question.bare:
        answer = {"type": "object", "required": ["results", "meta"], "properties": {"results": result, "meta": meta}}
    forms = ("json",) if question.changes else FORMATS
    text = {"schema": {"type": "string"}}
    content = {MEDIA_TYPES[form]: {"schema": answer} if form == "json" else text for form in forms}
    done: dict[str, Any] = {"200": {"description": question.definition, "content": content}}
    if question.method == "GET":
        done["304"] = {"description": "The answer is still the one that If-None-Match names."}
    elif question.method == "DELETE":
        done = {"204": {"description": question.definition}}
    elif question.changes:
        done = {"201": {"description": question.definition, "content": content}}
    applies = {
        "401": requires_token,
        "403": question.changes,
        "404": "{" in question.path,
        "413": question.method == "POST",
    }
    return {**done, **{status: _refused(words) for status, words in REFUSALS.items() if applies.get(status, True)}}


def _body(parameters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of a body that has parameters."""
    return {
        "type": "object",
        "properties": {one["name"]: one["schema"] for one in parameters},
        "required": [one["name"] for one in parameters if one["required"]],
        "additionalProperties": False,
    }


def _parameter(parameter: Parameter, of_type: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    schema = parameter.schema(of_type)
    if parameter.default is not None:
        default = parameter.default
        schema = {**schema, "default": default.total_seconds() if isinstance(default, timedelta) else default}
    described = {
        "name": parameter.name,
        "in": "path" if parameter.in_path else "query",
        "required": parameter.is_required,
        **({"content": {"application/json": {"schema": schema}}} if parameter.is_object else {"schema": schema}),
    }
    if parameter.name in WORDS:
        described["description"] = WORDS[parameter.name]
    return described


def _format(question: Question) -> dict[str, Any]:
    schema = {"type": "string", "enum": ["json"] if question.changes else list(FORMATS), "default": "json"}
    return {"name": "format", "in": "query", "required": False, "schema": schema, "description": WORDS["format"]}


def _refused(description: str) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(name="Refused")}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _probe(path: str, summary: str, answers: dict[str, str]) -> dict[str, Any]:
    ok = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    responses = {
        status: {"description": words, "content": {"application/json": {"schema": ok}}}
        if status == "200"
        else _refused(words)
        for status, words in answers.items()
    }
    return {"operationId": path.strip("/"), "summary": summary, "responses": responses}
