"""Beside the middleware of OpenTelemetry and of Sentry, in both orders: each records what it would alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import Server, http_scope

Wrap = Callable[[Any], Any]


async def page(request: Request) -> Response:
    return PlainTextResponse("page")


async def boom(request: Request) -> Response:
    raise ValueError("no")


async def half(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("no")

    return StreamingResponse(parts())


class Other:
    """Another tool's middleware, and what it has recorded: the errors, as the names of their classes."""

    def __init__(self, wrap: Wrap, errors: Callable[[], list[str]], requests: Callable[[], int]) -> None:
        self.wrap = wrap
        self.errors = errors
        self.requests = requests


def opentelemetry() -> Iterator[Other]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def servers() -> list[Any]:
        return [span for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]

    def errors() -> list[str]:
        events = [event for span in servers() for event in span.events if event.name == "exception"]
        return [str((event.attributes or {})["exception.type"]) for event in events]

    yield Other(lambda app: OpenTelemetryMiddleware(app, tracer_provider=provider), errors, lambda: len(servers()))


def sentry() -> Iterator[Other]:
    sent: list[dict[str, Any]] = []

    def keep(event: Any, hint: Any) -> None:
        sent.append(event)

    sentry_sdk.init(
        "https://key@localhost/1",
        before_send=keep,
        before_send_transaction=keep,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
    )

    def errors() -> list[str]:
        return [event["exception"]["values"][-1]["type"] for event in sent if "exception" in event]

    yield Other(
        SentryAsgiMiddleware, errors, lambda: len([event for event in sent if event.get("type") == "transaction"])
    )
    sentry_sdk.get_client().close()
    sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)  # else it patches Starlette


@pytest.fixture(params=[opentelemetry, sentry], ids=["opentelemetry", "sentry"])
def other(request: pytest.FixtureRequest) -> Iterator[Other]:
    yield from request.param()


def application() -> Any:
    return Starlette(routes=[Route("/page/{n}", page), Route("/boom", boom), Route("/half", half)])


@pytest.fixture(params=["inside", "outside"])
def wrapped(request: pytest.FixtureRequest, analytics: CapturedEvents, other: Other) -> Any:
    """Give the application in both middleware, ours inside or outside of the other."""
    if request.param == "inside":
        return other.wrap(AnalyticsMiddleware(application(), client=analytics.client))
    return AnalyticsMiddleware(other.wrap(application()), client=analytics.client)


async def ask(app: Any, path: str) -> tuple[Server, BaseException | None]:
    server = Server()
    try:
        await app(http_scope(path), server.receive, server.send)
    except (ValueError, ExceptionGroup) as error:
        return server, error
    return server, None


async def test_an_answer_is_recorded_by_both(wrapped: Any, other: Other, analytics: CapturedEvents) -> None:
    server, error = await ask(wrapped, "/page/1")

    assert (server.status, server.body, error) == (200, b"page", None)
    [request] = analytics.of("api_request")
    assert (request.data["endpoint"], request.data["status_code"]) == ("/page/{n}", 200)
    assert (request.data["outcome"], request.data["response_bytes"]) == ("ok", 4)
    assert (other.requests(), other.errors()) == (1, [])


@pytest.mark.parametrize(("path", "status"), [("/boom", 500), ("/half", 200)])
async def test_an_error_is_recorded_by_both_and_raised_unchanged(
    wrapped: Any, other: Other, analytics: CapturedEvents, path: str, status: int
) -> None:
    without, error_without = await ask(other.wrap(application()), path)
    errors_without = other.errors()
    server, error = await ask(wrapped, path)

    assert server.sent == without.sent
    assert server.status == status
    assert repr(error) == repr(error_without)
    assert "ValueError('no')" in repr(error)  # before 0.46, Starlette raises the group of tasks that sent the response
    [request], [reported] = analytics.of("api_request"), analytics.of("application_error")
    assert (request.data["status_code"], request.data["outcome"]) == (status, "error")
    assert (request.data["endpoint"], request.data["error_type"]) == (path, "ValueError")
    assert reported.data["error_type"] == "ValueError"
    assert (other.requests(), other.errors()) == (2, errors_without * 2)
