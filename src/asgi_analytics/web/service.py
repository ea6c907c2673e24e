"""How a service is put together: its routes behind the access log, with problems for what is refused."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from asgi_analytics.web.access import AccessLog
from asgi_analytics.web.metrics import RequestMetrics
from asgi_analytics.web.problem import Problem, respond

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def make_service(
    name: str,
    routes: Sequence[BaseRoute],
    *,
    start: Callable[[], object],
    aclose: Callable[[], Awaitable[object]],
    hint: str,
    failed: Problem,
    respond: Callable[[Problem], Response] = respond,
) -> Starlette:
    """Return an application for ``routes``, to run alone or to mount.

    ``name`` stands in the names of its metrics. ``start`` and ``aclose`` are called when its lifespan begins and ends.
    ``hint`` tells callers of an unknown path, or with a wrong method, where to go; ``failed`` is the answer if an
    endpoint raises anything but a `Problem`, and ``respond`` makes the response of one.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        start()
        try:
            yield
        finally:
            await aclose()

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return respond(error)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = {404: f"there is nothing at this path: {hint}", 405: hint}.get(error.status_code, error.detail)
        return respond(Problem(error.status_code, detail, error.headers))

    app = Starlette(
        routes=routes,
        middleware=[Middleware(AccessLog, metrics=RequestMetrics(name), failed=respond(failed))],
        exception_handlers={Problem: on_problem, HTTPException: on_http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would repeat the Host header of the request
    return app
