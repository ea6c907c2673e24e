"""The middleware around bare ASGI applications: one event a request, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware
from asgi_analytics.context import current, suppress
from asgi_analytics.encoding.request_record import RequestRecord
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.captured import ApiRequest
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.asgi_app import (
    Message,
    Receive,
    Scope,
    Send,
    Server,
    body,
    get,
    hello,
    http_scope,
    run,
    sending,
    start,
    the_request,
    wrapped,
)

# -- one event, nothing changed


async def test_a_request_is_one_event(analytics: CapturedEvents) -> None:
    sent = await get(wrapped(hello, analytics), "/")

    request = the_request(analytics)
    assert sent == [start(), body()]
    assert request["method"] == "GET"
    assert request["status_code"] == 200
    assert request["outcome"] == "ok"
    assert request["response_bytes"] == 5
    assert request["endpoint"] is None
    assert 0 <= request["ttfb_ms"] <= request["duration_ms"]


async def test_the_exception_goes_on_as_the_same_object(analytics: CapturedEvents) -> None:
    boom = RuntimeError("boom")
    with pytest.raises(RuntimeError) as raised:
        await get(wrapped(sending(then=boom), analytics))

    assert raised.value is boom
    assert boom.__cause__ is None
    assert boom.__context__ is None


async def test_http_receive_is_handed_on_as_it_is(analytics: CapturedEvents) -> None:
    got: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.append(receive)
        await hello(scope, receive, send)

    async def receive() -> Message:
        raise AssertionError("nobody asked for the body")

    await wrapped(app, analytics)(http_scope(), receive, Server().send)

    assert got == [receive]


async def test_messages_are_handed_on_as_the_same_objects(analytics: CapturedEvents) -> None:
    messages = [start(), body(b"a", more_body=True), {"type": "http.response.debug", "info": {}}, body(b"b")]
    sent = await get(wrapped(sending(*messages), analytics))

    assert all(one is other for one, other in zip(sent, messages, strict=True))


@pytest.mark.parametrize("kind", ["lifespan", "mystery"])
async def test_other_scopes_get_the_same_three_objects(analytics: CapturedEvents, kind: str) -> None:
    got: list[Any] = []

    async def app(*three: Any) -> None:
        got.extend(three)

    server = Server()
    receive, send, scope = server.receive, server.send, {"type": kind}
    await wrapped(app, analytics)(scope, receive, send)

    assert got[0] is scope
    assert got[1] is receive
    assert got[2] is send
    assert scope == {"type": kind}
    assert analytics.events == []


async def test_the_scope_is_left_as_it_was(analytics: CapturedEvents) -> None:
    scope = http_scope()
    before = dict(scope)
    await run(wrapped(hello, analytics), scope)

    assert scope == before
    assert current.get() is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
async def test_standard_methods_are_named(analytics: CapturedEvents, method: str) -> None:
    await run(wrapped(hello, analytics), http_scope(method=method))

    assert the_request(analytics)["method"] == method


@pytest.mark.parametrize("method", ["PROPFIND", "get", "", "X" * 1000])
async def test_other_methods_are_other(analytics: CapturedEvents, method: str) -> None:
    await run(wrapped(hello, analytics), http_scope(method=method))

    assert the_request(analytics)["method"] == "_OTHER"


async def test_a_call_by_name_and_those_of_classes_that_derive_are_the_same(
    analytics: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Plain(AnalyticsMiddleware):
        pass

    class Own(AnalyticsMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append("own")
            await super().__call__(scope, receive, send)

    async def send(message: Message) -> None:
        pass

    middleware: Any = wrapped(hello, analytics)
    await middleware(scope=http_scope("/"), receive=None, send=send)
    for kind in (Plain, Own):
        app: Any = kind(hello, client=analytics.client)
        await app(http_scope("/"), None, send)
        await app.__call__(http_scope("/"), None, send)
    assert seen == ["own", "own"]
    assert len(analytics.of("api_request")) == 5
    for arguments in ((), (1, 2), (1, 2, 3, 4)):
        with pytest.raises(TypeError, match="argument"):
            middleware(*arguments)
    original: Any = AnalyticsMiddleware.__call__

    def patched(self: Any, *args: Any) -> Any:
        seen.append("patched")
        return original(self, *args)

    monkeypatch.setattr(AnalyticsMiddleware, "__call__", patched)
    await middleware(http_scope("/"), None, send)
    assert seen[2:] == ["patched"]
    assert len(analytics.of("api_request")) == 6


async def test_a_head_has_no_body(analytics: CapturedEvents) -> None:
    await run(wrapped(hello, analytics), http_scope(method="HEAD"))

    assert the_request(analytics)["response_bytes"] == 0


async def test_an_installation_in_an_installation_is_one(analytics: CapturedEvents) -> None:
    app: Any = hello
    for _ in range(5):
        app = wrapped(app, analytics)
    await get(app)

    assert len(analytics.events) == 1


async def test_each_client_has_an_event_of_its_own(analytics: CapturedEvents) -> None:
    from asgi_analytics import set_user

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        set_user(7)
        await hello(scope, receive, send)

    with capture_events(service="other") as other:
        await get(wrapped(wrapped(wrapped(app, other), analytics), other))
        [theirs] = other.of("api_request")
        [ours] = analytics.of("api_request")

    assert theirs.user_id == ours.user_id is not None


async def test_a_request_in_a_request_is_another_one(analytics: CapturedEvents) -> None:
    inner = wrapped(hello, analytics)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await get(inner, "/inner")
        await hello(scope, receive, send)

    await get(wrapped(app, analytics), "/outer")

    assert len(analytics.of("api_request")) == 2


async def test_a_scope_may_be_used_again(analytics: CapturedEvents) -> None:
    app, scope = wrapped(hello, analytics), http_scope()
    await run(app, scope)
    await run(app, scope)

    assert len(analytics.events) == 2


async def test_a_disabled_client_and_the_pipeline_itself_capture_nothing(analytics: CapturedEvents) -> None:
    await get(AnalyticsMiddleware(hello, client=AnalyticsClient(service="t", enabled=False)))
    with suppress():
        await get(wrapped(hello, analytics))

    assert analytics.events == []


async def test_what_goes_wrong_inside_never_reaches_the_client(
    analytics: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    app = wrapped(hello, analytics)
    monkeypatch.setattr(RequestRecord, "line", broken)
    assert await get(app) == [start(), body()]

    odd: list[Message] = [start() | {"status": "200"}, {"type": "http.response.body", "body": None}, body()]
    assert await get(wrapped(sending(*odd), analytics)) == odd


# -- exclude and options


@pytest.mark.parametrize(
    ("path", "root_path", "is_excluded"),
    [
        ("/health", "", True),
        ("/health/", "", False),
        ("/healthy", "", False),
        ("/static/a.js", "", True),
        ("/static/", "", True),
        ("/static", "", False),
        ("/statics/a.js", "", False),
        ("/behind/health", "/behind", True),
        ("/health", "/behind", True),
        ("/behindhealth", "/behind", False),
    ],
)
async def test_exclude(analytics: CapturedEvents, path: str, root_path: str, is_excluded: bool) -> None:
    app = wrapped(hello, analytics, exclude=["/health", "/static/*"])
    sent = await get(app, path, root_path=root_path)

    assert sent == [start(), body()]
    assert (analytics.events == []) is is_excluded


async def test_an_excluded_request_is_excluded_below_too(analytics: CapturedEvents) -> None:
    inner = wrapped(sending(then=ValueError("no")), analytics)
    with contextlib.suppress(ValueError):
        await get(wrapped(inner, analytics, exclude=["/health"]), "/health")

    assert analytics.events == []


@pytest.mark.parametrize(
    "options",
    [
        {"exclude": "/health"},
        {"exclude": None},
        {"exclude": ["health"]},
        {"exclude": ["/a*"]},
        {"exclude": ["/*/b"]},
        {"user_id": "alice"},
        {"endpoint": "/x"},
    ],
)
def test_a_wrong_option_is_named(analytics: CapturedEvents, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        wrapped(hello, analytics, **options)


def test_a_wrong_client_is_named() -> None:
    with pytest.raises(ConfigError, match="AnalyticsClient"):
        AnalyticsMiddleware(hello, client="postgresql://…")  # type: ignore[arg-type]


async def test_capture_errors_can_be_left_out(analytics: CapturedEvents) -> None:
    with contextlib.suppress(ValueError):
        await get(wrapped(sending(then=ValueError("no")), analytics, capture_errors=False))

    assert [event.event_type for event in analytics.events] == ["api_request"]
    assert the_request(analytics)["error_type"] == "ValueError"


async def test_the_endpoint_may_come_from_a_callable(analytics: CapturedEvents) -> None:
    await get(wrapped(hello, analytics, endpoint=lambda scope: "/by/{hand}"))

    assert the_request(analytics)["endpoint"] == "/by/{hand}"


async def test_a_callable_that_fails_changes_nothing(analytics: CapturedEvents) -> None:
    def fail(scope: Scope) -> Any:
        raise LookupError("no")

    app = wrapped(hello, analytics, endpoint=fail, user_id=fail, session_id=fail)

    assert await get(app) == [start(), body()]
    [event] = analytics.of("api_request")
    assert (event.data["endpoint"], event.user_id, event.session_id) == (None, None, None)


# -- a filter, a clock: events as objects


async def test_before_track_sees_the_event(analytics: CapturedEvents) -> None:
    seen: list[Any] = []

    def before(event: Any) -> Any:
        seen.append(event)
        return event

    with capture_events(before_track=before) as captured:
        await get(wrapped(hello, captured))
        assert captured.of("api_request")[0].data["response_bytes"] == 5

    assert isinstance(seen[0], ApiRequest)


async def test_captured_events_are_refused_from_80_percent_full() -> None:
    with capture_events(queue_size=10) as captured:
        app = wrapped(hello, captured)
        for _ in range(20):
            await get(app)

        assert len(captured.events) == 8
        assert captured.client.stats().dropped["queue_full"] == 12


# -- lifespan


async def test_the_flush_follows_the_applications_return(
    analytics: CapturedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    async def aflush(timeout: float | None = None) -> bool:
        happened.append("flush")
        return True

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        happened.append("application")

    monkeypatch.setattr(analytics.client, "aflush", aflush)
    monkeypatch.setattr(analytics.client._delivery, "has_worker", lambda: True)
    await wrapped(app, analytics)({"type": "lifespan"}, Server().receive, Server().send)

    assert happened == ["application", "flush"]


async def test_a_lifespan_that_fails_raises_its_own(analytics: CapturedEvents) -> None:
    boom = ValueError("no lifespan here")
    with pytest.raises(ValueError, match="no lifespan") as raised:
        await wrapped(sending(then=boom), analytics)({"type": "lifespan"}, Server().receive, Server().send)

    assert raised.value is boom
    assert analytics.events == []


async def test_a_client_without_a_worker_is_not_waited_for() -> None:
    client = AnalyticsClient(service="t")
    app = AnalyticsMiddleware(hello, client=client)
    await get(app)
    async with asyncio.timeout(1):
        await app({"type": "lifespan"}, Server().receive, Server().send)

    client.close(0)


async def test_another_application_may_take_the_place_of_the_first(analytics: CapturedEvents) -> None:
    async def away(scope: Any, receive: Any, send: Any) -> None:
        await send(start(404))
        await send(body())

    app: Any = wrapped(hello, analytics)
    await get(app)
    app.app = away
    await get(app)
    assert app.app is away
    assert [event.data["status_code"] for event in analytics.events] == [200, 404]
