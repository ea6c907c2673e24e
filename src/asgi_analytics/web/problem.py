"""What a refused request is answered: an RFC 9457 problem, which says what to do and repeats nothing of the request."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

CLOSE = {"Connection": "close"}
"""For a request whose body will not be read to its end."""


_HINTS = {404: "nothing is here: batches go to POST /events/batch", 405: "batches go to POST /events/batch"}


class Problem(Exception):
    """A request is refused with a status; ``detail`` is for the caller to read."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def respond(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for a problem."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers=dict(headers or {}), media_type="application/problem+json")


async def on_problem(request: Request, problem: Exception) -> Response:
    """Answer a `Problem`."""
    assert isinstance(problem, Problem)
    return respond(problem.status, problem.detail, problem.headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path, a wrong method."""
    exception: HTTPException = error  # type: ignore[assignment]  # registered for it alone
    return respond(exception.status_code, _HINTS.get(exception.status_code, exception.detail), exception.headers)


def failed() -> Response:
    """Return the response for what nobody expected."""
    return respond(
        500, "something failed here; nothing is known to be stored, send the batch again", {"Retry-After": "5"}
    )
