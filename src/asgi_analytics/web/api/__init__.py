"""The API: answers every question of `asgi_analytics.reading` over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.errors import ConfigError, MissingExtra
from asgi_analytics.reading import AnalyticsReader

try:
    import starlette  # noqa: F401  # tells at once what is missing
except ImportError:
    raise MissingExtra("starlette", "server") from None

from asgi_analytics.web.api.answers import Answers
from asgi_analytics.web.api.endpoints import ApiService
from asgi_analytics.web.api.refusals import Refusal, respond
from asgi_analytics.web.service import make_service
from asgi_analytics.web.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.applications import Starlette

_FAILED = Refusal(500, "internal_error", "something failed here; the log of the service says what")


def create_api_app(
    reader: AnalyticsReader, *, tokens: Iterable[str] = (), change_tokens: Iterable[str] = ()
) -> Starlette:
    """Return the API as an ASGI application, to run alone or to mount: ``Mount("/stats", app=…)``.

    Its routes answer below ``/api/analytics`` and without that prefix. Nothing is connected before the first request. A
    reader that was made from a URL is opened with it, and closed when the lifespan of the application ends; if that is
    not run, as for a mounted application, the reader is the caller's to close. Its pool should have a connection for
    each of the 4 questions that run at once, and one for ``/ready``. Without ``tokens`` every question is accepted. To
    keep or delete a funnel takes one of the ``change_tokens``; without any nobody can.

    Raises `ConfigError` for a wrong setting, `MissingExtra` without Starlette.
    """
    if not isinstance(reader, AnalyticsReader):
        raise ConfigError(
            "reader is not an AnalyticsReader: create_api_app(AnalyticsReader.from_url('postgresql://…'))"
        )
    service = ApiService(reader, tokens=Tokens(tokens), change_tokens=Tokens(change_tokens), answers=Answers())
    app = make_service(
        "api",
        service.routes(),
        start=lambda: None,
        aclose=service.aclose,
        hint="GET /openapi.json lists the questions",
        failed=_FAILED,
        respond=respond,
    )
    app.state.api = service
    return app
