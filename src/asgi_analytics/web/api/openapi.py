"""The OpenAPI description of the API: it follows from the signatures of the questions and the structs they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics._version import __version__
from asgi_analytics.reading.reader import Meta
from asgi_analytics.web.api.formats import MEDIA_TYPES
from asgi_analytics.web.api.parameters import FORMATS, Parameter, Parameters
from asgi_analytics.web.api.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    "404": "There is nothing at this path.",
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
    kinds = [Meta, Refused, *(one.types["return"] for one in asked)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    meta, _, *results = schemas
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "asgi-analytics",
            "version": __version__,
            "description": "Answers questions about the analytics events in TimescaleDB or PostgreSQL.",
        },
        "servers": [{"url": server}],
        "paths": {
            **{path: {"get": _probe(path, summary, answers)} for path, (summary, answers) in PROBES.items()},
            **{
                question.path: {"get": _question(question, result, meta, requires_token)}
                for question, result in zip(asked, results, strict=True)
            },
        },
        "components": {
            "schemas": dict(sorted(components.items())),
            **({"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}} if requires_token else {}),
        },
    }


def _question(question: Question, result: dict[str, Any], meta: dict[str, Any], requires_token: bool) -> dict[str, Any]:
    known = Parameters(question).known.values()
    answer = result
    if not question.bare:
        answer = {"type": "object", "required": ["results", "meta"], "properties": {"results": result, "meta": meta}}
    text = {"schema": {"type": "string"}}
    content = {MEDIA_TYPES[form]: {"schema": answer} if form == "json" else text for form in FORMATS}
    left_out = {status for status, leave in (("401", not requires_token), ("404", "{" not in question.path)) if leave}
    responses: dict[str, Any] = {
        "200": {"description": question.definition, "content": content},
        "304": {"description": "The answer is still the one that If-None-Match names."},
        **{status: _refused(words) for status, words in REFUSALS.items() if status not in left_out},
    }
    return {
        "operationId": question.name,
        "summary": question.definition.removesuffix("."),
        "parameters": [*(_parameter(one) for one in known), _format()],
        "responses": responses,
        **({"security": [{"token": []}]} if requires_token else {}),
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = parameter.schema
    if parameter.default is not None:
        schema = {**schema, "default": parameter.default}
    described = {
        "name": parameter.name,
        "in": "path" if parameter.in_path else "query",
        "required": parameter.in_path,
        "schema": schema,
    }
    if parameter.name in WORDS:
        described["description"] = WORDS[parameter.name]
    return described


def _format() -> dict[str, Any]:
    schema = {"type": "string", "enum": list(FORMATS), "default": "json"}
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
