"""The dashboard: pages that a person looks at, which answer by the questions of the API."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from asgi_analytics.errors import ConfigError, MissingExtra
from asgi_analytics.reading import AnalyticsReader

try:
    import starlette  # noqa: F401  # tells at once what is missing
except ImportError:
    raise MissingExtra("starlette", "server") from None
try:
    import jinja2  # noqa: F401
except ImportError:
    raise MissingExtra("jinja2", "server") from None

from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Mount, Route

from asgi_analytics.web.api.answers import Answers
from asgi_analytics.web.api.endpoints import ApiService
from asgi_analytics.web.dashboard.admission import Admission, Authorize
from asgi_analytics.web.dashboard.endpoints import FAILED, DashboardService
from asgi_analytics.web.service import make_service
from asgi_analytics.web.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Authorize", "create_dashboard_app", "join"]


def create_dashboard_app(
    reader: AnalyticsReader,
    *,
    authorize: Authorize | None = None,
    change_tokens: Iterable[str] = (),
    answers: Answers | None = None,
) -> Starlette:
    """Return the dashboard as an ASGI application, to mount anywhere: ``Mount("/insights", app=…)``.

    ``authorize`` says who may see it: a token, or a list of them, for which a login page asks; ``"loopback"`` for this
    machine only; or a callable, sync or async, that takes the ASGI scope of a request and returns whether it may. There
    is no default. To keep or delete a funnel takes one of the ``change_tokens``; without any nobody can. ``answers``
    are those of an API beside it, so that both together ask no more than 4 questions at once.

    Nothing is connected before the first request. A reader that was made from a URL is opened with it, and closed when
    the lifespan of the application ends; if that is not run, as for a mounted application, the reader is the caller's
    to close.

    Raises `ConfigError` for a wrong setting, `MissingExtra` without Starlette or Jinja2.
    """
    if not isinstance(reader, AnalyticsReader):
        raise ConfigError(
            "reader is not an AnalyticsReader: create_dashboard_app(AnalyticsReader.from_url('postgresql://…'), …)"
        )
    admission = Admission(authorize, change_tokens)
    api = ApiService(reader, tokens=Tokens(()), change_tokens=Tokens(()), answers=answers or Answers())
    service = DashboardService(api, admission)
    app = make_service(
        "dashboard",
        service.routes(),
        start=lambda: None,
        aclose=api.aclose,
        hint="the dashboard begins at the path that it is mounted at",
        failed=FAILED,
        respond=service.respond,
    )
    app.state.dashboard = service
    return app


def join(api: Starlette, dashboard: Starlette) -> Starlette:
    """Return an application with an API, and a dashboard at ``/ui/``, where ``/`` leads; its lifespan is the API's."""
    routes = [
        Route("/", _to_dashboard, methods=["GET"]),
        Route("/ui", _to_dashboard, methods=["GET"]),
        Mount("/ui", app=dashboard),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with api.router.lifespan_context(api):
            yield

    app = Starlette(routes=routes, lifespan=lifespan)
    app.router.redirect_slashes = False  # a redirect would repeat the Host header of the request
    app.router.default = api  # not a mount, which takes no path with a line feed in it
    return app


async def _to_dashboard(request: Request) -> Response:
    return RedirectResponse("ui/", 307, {"Cache-Control": "no-store"})
