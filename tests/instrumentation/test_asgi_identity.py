"""Who, where and in which trace: from callables, from authentication, from set_user at any depth."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from fastapi import Depends, FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_analytics import AnalyticsMiddleware, set_session, set_user
from asgi_analytics.context import current
from asgi_analytics.events import USER_NAMESPACE
from asgi_analytics.events.base import EnrichedEvent
from asgi_analytics.events.cocoons import CocoonConnected
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import App, Receive, Scope, Send, get, hello, http_scope, run, start

SOMEBODY = uuid4()


def mapped(user_id: object) -> UUID:
    return uuid5(USER_NAMESPACE, str(user_id))


def the_request(analytics: CapturedEvents) -> EnrichedEvent:
    [event] = analytics.of("api_request")
    return event


def says_user(user: Any) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = user
        await hello(scope, receive, send)

    return app


class Account:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (SOMEBODY, SOMEBODY),
        (str(SOMEBODY), SOMEBODY),
        (7, mapped(7)),
        ("alice", mapped("alice")),
        ({"id": 7, "email": "a@example.org"}, mapped(7)),
        ({"sub": "auth0|1"}, mapped("auth0|1")),
        (Account(id=SOMEBODY, username="alice"), SOMEBODY),
        (Account(pk=7, is_authenticated=True), mapped(7)),
        (SimpleUser("alice"), mapped("alice")),
        (Account(id=7, is_authenticated=False), None),
        (Account(email="a@example.org"), None),
        (Account(id=object()), None),
        (True, None),
        (None, None),
        ({}, None),
    ],
)
async def test_the_user_of_the_scope(analytics: CapturedEvents, user: Any, expected: UUID | None) -> None:
    await get(AnalyticsMiddleware(says_user(user), client=analytics.client))

    assert the_request(analytics).user_id == expected


async def test_the_original_of_a_mapped_user_is_in_the_context(analytics: CapturedEvents) -> None:
    await get(AnalyticsMiddleware(says_user('al"ice\x00'), client=analytics.client))

    context = the_request(analytics).context
    assert context is not None
    assert context["user_key"] == 'al"ice\ufffd'


async def test_set_user_wins_over_the_callable_which_wins_over_the_scope(analytics: CapturedEvents) -> None:
    def by_callable(scope: Scope) -> str | None:
        return {"/a": None}.get(scope["path"], "callable")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/c":
            set_user("said")
            set_session("said")
        await says_user("scope")(scope, receive, send)

    wrapped = AnalyticsMiddleware(app, client=analytics.client, user_id=by_callable, session_id=lambda scope: "called")
    for path in ("/a", "/b", "/c"):
        await get(wrapped, path)

    assert [event.user_id for event in analytics.events] == [mapped("scope"), mapped("callable"), mapped("said")]
    assert [event.session_id for event in analytics.events] == ["called", "called", "said"]


async def test_set_user_none_takes_the_name_away(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_user(None)
        await says_user("scope")(scope, receive, send)

    await get(AnalyticsMiddleware(app, client=analytics.client))

    assert the_request(analytics).user_id is None


async def test_set_user_with_nonsense_costs_nothing(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_user("alice")
        set_user(object())  # type: ignore[arg-type]
        await hello(scope, receive, send)

    await get(AnalyticsMiddleware(app, client=analytics.client))

    assert the_request(analytics).user_id == mapped("alice")


async def test_domain_events_have_what_the_callables_say(analytics: CapturedEvents) -> None:
    def by_callable(scope: Scope) -> int:
        analytics.client.track(CocoonConnected(cocoon_id=SOMEBODY))  # from within: no endless loop
        return 7

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        analytics.client.track(CocoonConnected(cocoon_id=SOMEBODY))
        await hello(scope, receive, send)

    await get(AnalyticsMiddleware(app, client=analytics.client, user_id=by_callable))

    nested, domain, *_ = analytics.of("cocoon_connected")
    assert nested.user_id is None
    assert domain.user_id == the_request(analytics).user_id == mapped(7)


async def test_authentication_and_base_http_middleware_inside(analytics: CapturedEvents) -> None:
    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> Any:
            return AuthCredentials(["authenticated"]), SimpleUser("alice")

    async def dispatch(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    async def page(request: Request) -> Response:
        set_session("deep")
        return PlainTextResponse("page")

    app = Starlette(
        routes=[Route("/", page)],
        middleware=[
            Middleware(AnalyticsMiddleware, client=analytics.client),
            Middleware(BaseHTTPMiddleware, dispatch=dispatch),
            Middleware(AuthenticationMiddleware, backend=Backend()),
            Middleware(BaseHTTPMiddleware, dispatch=dispatch),
        ],
    )
    await get(app)

    assert the_request(analytics).user_id == mapped("alice")
    assert the_request(analytics).session_id == "deep"


async def test_set_user_in_a_threaded_dependency(analytics: CapturedEvents) -> None:
    def user() -> None:
        set_user("threaded")

    app = FastAPI()

    @app.get("/", dependencies=[Depends(user)])
    async def page() -> str:
        return "page"

    await get(AnalyticsMiddleware(app, client=analytics.client))

    assert the_request(analytics).user_id == mapped("threaded")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"abc-123", "abc-123"),
        (b'a"b\\c', 'a"b\\c'),
        (b"x" * 200, "x" * 200),
        (b"x" * 201, None),
        (b"", None),
        (b"a\nb", None),
        (b"\xff\xfe", None),
    ],
)
async def test_the_request_id_is_the_callers_or_made(
    analytics: CapturedEvents, sent: bytes, stored: str | None
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/domain":
            analytics.client.track(CocoonConnected(cocoon_id=SOMEBODY))
        await hello(scope, receive, send)

    wrapped = AnalyticsMiddleware(app, client=analytics.client)
    for path in ("/", "/domain"):
        await run(wrapped, http_scope(path, headers=[(b"host", b"x"), (b"x-request-id", sent)]))

    ids = [event.context["request_id"] for event in analytics.events if event.context]
    if stored is not None:
        assert ids == [stored] * 3
    else:
        assert len(ids[0]) == 32
        assert ids[1] == ids[2] != ids[0]


async def test_without_a_trace_there_is_none(analytics: CapturedEvents) -> None:
    await get(AnalyticsMiddleware(hello, client=analytics.client))

    context = the_request(analytics).context
    assert context is not None
    assert context["trace_id"] is None
    assert context["span_id"] is None


async def test_a_span_inside_of_the_middleware_is_found(analytics: CapturedEvents) -> None:
    tracer = TracerProvider().get_tracer("test")
    spans: list[trace.SpanContext] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with tracer.start_as_current_span("inside") as span:
            spans.append(span.get_span_context())
            await hello(scope, receive, send)

    await get(AnalyticsMiddleware(app, client=analytics.client))

    context = the_request(analytics).context
    assert context is not None
    assert context["trace_id"] == f"{spans[0].trace_id:032x}"
    assert context["span_id"] == f"{spans[0].span_id:016x}"


async def test_queries_are_summed_on_the_request(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = current.get()
        assert request is not None
        for fingerprint in ("a", "b", "a"):
            request.count_query(fingerprint)
            request.add_query_time(0.5)
        await hello(scope, receive, send)

    await get(AnalyticsMiddleware(app, client=analytics.client))

    data = the_request(analytics).data
    assert (data["db_queries"], data["db_duration_ms"], data["db_repeats"]) == (3, 1.5, 2)


async def test_the_endpoint_is_known_within_the_handler_and_a_decorators_name_wins(analytics: CapturedEvents) -> None:
    known: list[str | None] = []

    async def page(request: Request) -> Response:
        context = current.get()
        assert context is not None
        known.append(context.endpoint)
        if request.path_params["x"] == "named":
            context.endpoint = "by-hand"
        return PlainTextResponse("page")

    app = AnalyticsMiddleware(Starlette(routes=[Route("/a/{x}", page)]), client=analytics.client)
    await get(app, "/a/1")
    await get(app, "/a/named")

    assert known == ["/a/{x}", "/a/{x}"]
    assert [event.data["endpoint"] for event in analytics.events] == ["/a/{x}", "by-hand"]


async def test_work_that_outlives_the_request_knows_it_and_keeps_nothing_of_it(analytics: CapturedEvents) -> None:
    class Body:
        pass

    tasks: list[asyncio.Task[None]] = []
    kept: list[weakref.ref[Body]] = []
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        analytics.client.track(CocoonConnected(cocoon_id=SOMEBODY))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        thing = Body()
        kept.append(weakref.ref(thing))
        scope["state"]["thing"] = thing
        tasks.append(asyncio.create_task(later()))
        await says_user("alice")(scope, receive, send)

    await get(AnalyticsMiddleware(app, client=analytics.client))
    gc.collect()
    assert kept[0]() is None
    go.set()
    await tasks[0]

    request, domain = analytics.events
    assert domain.user_id == request.user_id == mapped("alice")
    # The request has ended: who asked is still known, but what happens now is not part of it.
    assert request.context is not None
    assert domain.context == request.context | {"request_id": None}


async def test_nothing_of_a_request_is_left_for_the_next_one(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/first":
            set_user("alice")
            set_session("s")
            await send(start(201))
            await send({"type": "http.response.body", "body": b"abc"})
        else:
            await hello(scope, receive, send)

    wrapped = AnalyticsMiddleware(app, client=analytics.client)
    await get(wrapped, "/first")
    await get(wrapped, "/second")
    analytics.client.track(CocoonConnected(cocoon_id=SOMEBODY))

    _, second, outside = analytics.events
    assert (second.user_id, second.session_id, second.data["status_code"], second.data["response_bytes"]) == (
        None,
        None,
        200,
        5,
    )
    assert outside.user_id is None
    assert outside.context is not None
    assert outside.context["request_id"] is None
