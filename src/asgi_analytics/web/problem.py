"""How a refused request is answered: an RFC 9457 problem that says what to do and repeats nothing of the request."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

CLOSE = {"Connection": "close"}
"""For a request whose body is not read to its end."""


class Problem(Exception):
    """A request is refused with a status; ``detail`` is for the caller to read."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


def respond(problem: Problem) -> Response:
    """Return the response for a problem."""
    content = {"title": HTTPStatus(problem.status).phrase, "status": problem.status, "detail": problem.detail}
    headers = dict(problem.headers or {})
    return JSONResponse(content, problem.status, headers=headers, media_type="application/problem+json")
