"""How the API refuses: a status, a code for programs, a message for people, and the parameter that is wrong, if any."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from asgi_analytics.errors import InvalidQuery, NoConnection, NotMigrated, QueryTimeout
from asgi_analytics.log import failure, log_problem
from asgi_analytics.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgi_analytics.errors import ReadError

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer: a browser shows nothing of it as a page."""

FIELDS = {"start": "start_date", "end": "end_date"}
"""What the API calls the parameters of a question that it does not call by their Python names."""

RETRY = {"Retry-After": "5"}


class Refused(msgspec.Struct, frozen=True):
    """A request that is refused."""

    status: int
    code: str
    """For programs: invalid_parameter, unauthorized, not_found, no_connection and the like."""
    message: str
    """For people."""
    field: str | None
    """The parameter that is wrong, if a single one is."""


class Refusal(Problem):
    """A request is refused with a ``code`` of its own; ``field`` is the parameter that is wrong."""

    def __init__(
        self, status: int, code: str, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code = code
        self.field = field


def wrong(field: str | None, expected: str) -> Refusal:
    """Return the refusal of a parameter."""
    message = expected if field is None else f"{field}: {expected}"
    return Refusal(422, "invalid_parameter", message, field)


def refusal(error: ReadError) -> Refusal:
    """Return the refusal for what a question raised. What concerns the operator stands in the log only."""
    if isinstance(error, InvalidQuery):
        return wrong(FIELDS.get(error.field, error.field), error.expected)
    log_problem((__name__, type(error)), "questions are not answered: %s", failure(error))
    if isinstance(error, QueryTimeout):
        return Refusal(504, "query_timeout", "the database took too long: narrow the range")
    if isinstance(error, NotMigrated):
        return Refusal(
            503, "not_migrated", "the database lacks tables or views: run analytics-migrate all", None, RETRY
        )
    if isinstance(error, NoConnection):
        return Refusal(503, "no_connection", "the database cannot be reached: ask again", None, RETRY)
    message = "the database did not answer the question; the log of the service says why"
    return Refusal(503, "not_answered", message, None, RETRY)


def respond(problem: Problem) -> Response:
    """Return the response for a refusal, or for a problem that any service has."""
    if isinstance(problem, Refusal):
        code, field = problem.code, problem.field
    else:
        code, field = HTTPStatus(problem.status).phrase.lower().replace(" ", "_"), None
    content = msgspec.json.encode(Refused(problem.status, code, problem.detail, field))
    headers = {"Cache-Control": "no-store", **SECURITY, **(problem.headers or {})}
    return Response(content, problem.status, headers, "application/json")
