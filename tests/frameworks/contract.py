"""What the middleware promises, the same for every framework: a framework's tests subclass `FrameworkContract`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import Any, ClassVar
from uuid import uuid5

import pytest
from opentelemetry.sdk.trace import TracerProvider

from asgi_analytics import AnalyticsMiddleware, PageViews, events, set_session, set_user
from asgi_analytics.events import USER_NAMESPACE
from asgi_analytics.events.base import EnrichedEvent
from asgi_analytics.events.cocoons import CocoonConnected
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import Message, Server, http_scope

COCOON = uuid5(USER_NAMESPACE, "a cocoon")


class Unforeseen(Exception):
    """What nobody handles."""


class FrameworkContract:
    """Subclass it, say how the framework makes an application of routes, and how its templates look.

    The routes of `application` are pairs of a path, written ``/items/{item}``, and what the handler does: the name of
    one of the methods that a subclass has, ``hello``, ``boom`` and so on.
    """

    knows_405 = True
    """Whether the framework knows the route of a request whose method it does not allow."""
    has_lifespan = True

    client: Any
    install: str
    options: dict[str, Any]
    """Of the middleware, besides the client."""

    # -- what a framework says of itself

    def application(self, *routes: tuple[str, str]) -> Any:
        """Return an application with these routes, each for GET."""
        raise NotImplementedError

    def add(self, *routes: tuple[str, str]) -> Any:
        """Return an application with these routes, the middleware added in the framework's usual way."""
        return AnalyticsMiddleware(self.application(*routes), client=self.client, **self.options)

    def template(self, path: str) -> str:
        """Return a route's path as the framework writes it."""
        return path

    # -- how a test speaks with it

    @pytest.fixture(autouse=True, params=["outermost", "usual"])
    def _installed(self, request: pytest.FixtureRequest, analytics: CapturedEvents) -> None:
        self.install = request.param
        self.client = analytics.client
        self.options = {}
        self.analytics = analytics

    def made(self, *routes: tuple[str, str]) -> Any:
        if self.install == "usual":
            return self.add(*routes)
        return AnalyticsMiddleware(self.application(*routes), client=self.client, **self.options)

    async def get(self, app: Any, path: str, method: str = "GET", **more: Any) -> Server:
        """Run a request as a server would: what the application raises is the server's to log."""
        server = Server()
        with contextlib.suppress(Unforeseen):
            await app(http_scope(path, method, **more), server.receive, server.send)
        return server

    def request(self) -> EnrichedEvent:
        """Return the only ApiRequest."""
        [event] = self.analytics.of("api_request")
        return event

    # -- the promises

    async def test_a_request_is_one_event_with_its_template(self) -> None:
        server = await self.get(self.made(("/items/{item}", "hello")), "/items/7")

        event = self.request()
        assert server.status == 200
        assert server.body == b"hello"
        assert event.data["method"] == "GET"
        assert event.data["endpoint"] == self.template("/items/{item}")
        assert event.data["status_code"] == 200
        assert event.data["outcome"] == "ok"
        assert event.data["response_bytes"] == 5
        assert 0 <= event.data["ttfb_ms"] <= event.data["duration_ms"]
        assert event.data["error_type"] is None

    async def test_a_path_without_a_route_has_no_endpoint(self) -> None:
        server = await self.get(self.made(("/items/{item}", "hello")), "/nowhere/at/all")

        assert server.status == 404
        assert self.request().data["status_code"] == 404
        assert self.request().data["endpoint"] is None
        assert self.request().data["outcome"] == "ok"

    async def test_a_not_found_by_the_handler_keeps_the_template(self) -> None:
        await self.get(self.made(("/items/{item}", "not_found")), "/items/7")

        assert self.request().data["status_code"] == 404
        assert self.request().data["endpoint"] == self.template("/items/{item}")

    async def test_another_method_is_405_of_the_same_route(self) -> None:
        await self.get(self.made(("/items/{item}", "hello")), "/items/7", "DELETE")

        assert self.request().data["method"] == "DELETE"
        assert self.request().data["status_code"] == 405
        assert self.request().data["endpoint"] == (self.template("/items/{item}") if self.knows_405 else None)
        assert self.request().data["outcome"] == "ok"

    async def test_root_path_is_no_part_of_the_endpoint(self) -> None:
        app = self.made(("/items/{item}", "hello"))
        server = await self.get(app, "/behind/items/7", root_path="/behind")

        assert server.status == 200
        assert self.request().data["endpoint"] == self.template("/items/{item}")

    async def test_an_unhandled_exception_is_an_error_of_the_request(self) -> None:
        server = await self.get(self.made(("/boom", "boom")), "/boom")

        event = self.request()
        [error] = self.analytics.of("application_error")
        assert server.status in (500, None)
        assert event.data["status_code"] == 500
        assert event.data["outcome"] == "error"
        assert event.data["error_type"] == "tests.frameworks.contract.Unforeseen"
        assert event.data["endpoint"] == self.template("/boom")
        assert error.data["error_type"] == "tests.frameworks.contract.Unforeseen"
        assert error.data["error_message"] == "nobody knows"
        assert error.data["handled"] is False
        assert error.data["endpoint"] == self.template("/boom")
        assert error.data["stack"][0]["function"] == "raise_unforeseen"
        assert error.data["stack"][0]["file"].endswith("tests/frameworks/contract.py")
        assert error.context is not None
        assert event.context is not None
        assert error.context["request_id"] == event.context["request_id"]

    async def test_the_fingerprint_is_the_same_however_the_middleware_is_installed(self) -> None:
        await self.get(AnalyticsMiddleware(self.application(("/boom", "boom")), client=self.client), "/boom")
        await self.get(self.add(("/boom", "boom")), "/boom")

        first, second = self.analytics.of("application_error")
        assert first.data["fingerprint"] == second.data["fingerprint"]

    async def test_the_very_first_request_is_as_exact_as_the_others(self) -> None:
        app = self.made(("/boom", "boom"))
        for _ in range(2):
            await self.get(app, "/boom")

        first, second = (event.data for event in self.analytics.of("api_request"))
        assert {**first, "duration_ms": 0, "ttfb_ms": 0} == {**second, "duration_ms": 0, "ttfb_ms": 0}

    async def test_an_exception_with_an_answer_of_its_own_is_no_error(self) -> None:
        await self.get(self.made(("/refused", "refused")), "/refused")

        assert self.request().data["status_code"] == 503
        assert self.request().data["outcome"] == "ok"
        assert self.request().data["error_type"] is None
        assert self.analytics.of("application_error") == []

    async def test_a_handled_exception_can_be_reported(self) -> None:
        await self.get(self.made(("/reported", "reported")), "/reported")

        [error] = self.analytics.of("application_error")
        assert error.data["handled"] is True
        assert error.data["endpoint"] == self.template("/reported")
        assert self.request().data["outcome"] == "ok"

    async def test_a_stream_is_measured_to_its_end(self) -> None:
        server = await self.get(self.made(("/stream", "stream")), "/stream")

        assert server.body == b"0123456789" * 3
        assert self.request().data["response_bytes"] == 30
        assert self.request().data["outcome"] == "ok"
        assert self.request().data["duration_ms"] >= self.request().data["ttfb_ms"] + 10

    async def test_set_user_in_the_handler_reaches_all_events_of_the_request(self) -> None:
        await self.get(self.made(("/me", "me")), "/me")

        [domain] = self.analytics.of("cocoon_connected")
        for event in (domain, self.request()):
            assert event.user_id == uuid5(USER_NAMESPACE, "alice")
            assert event.session_id == "s-1"
        assert domain.context == self.request().context

    async def test_set_user_in_a_thread_reaches_the_request(self) -> None:
        await self.get(self.made(("/thread", "thread")), "/thread")

        assert self.request().user_id == uuid5(USER_NAMESPACE, "bob")

    async def test_two_hundred_requests_at_once_do_not_mix(self) -> None:
        app = self.made(("/who/{name}", "who"))
        await asyncio.gather(*(asyncio.create_task(self.get(app, f"/who/user-{n}")) for n in range(200)))

        requests = {e.context["request_id"]: e for e in self.analytics.of("api_request") if e.context}
        domain = {e.context["request_id"]: e for e in self.analytics.of("cocoon_connected") if e.context}
        assert len(requests) == len(domain) == 200
        assert {e.user_id for e in requests.values()} == {uuid5(USER_NAMESPACE, f"user-{n}") for n in range(200)}
        assert all(domain[key].user_id == event.user_id for key, event in requests.items())

    async def test_the_trace_of_the_server_is_in_the_events(self) -> None:
        tracer = TracerProvider().get_tracer("test")
        app = self.made(("/me", "me"))
        with tracer.start_as_current_span("server") as span:
            await self.get(app, "/me")

        expected = span.get_span_context()
        for event in self.analytics.events:
            assert event.context is not None
            assert event.context["trace_id"] == f"{expected.trace_id:032x}"
            assert event.context["span_id"] == f"{expected.span_id:016x}"

    async def test_an_excluded_request_makes_no_event_but_what_is_said(self) -> None:
        app = AnalyticsMiddleware(
            self.application(("/boom", "boom"), ("/me", "me")), client=self.client, exclude=["/boom", "/me"]
        )
        await self.get(app, "/boom")
        await self.get(app, "/me")

        assert [event.event_type for event in self.analytics.events] == ["cocoon_connected"]

    async def test_twice_is_once(self) -> None:
        await self.get(AnalyticsMiddleware(self.made(("/boom", "boom")), client=self.client), "/boom")

        assert len(self.analytics.of("api_request")) == 1
        assert len(self.analytics.of("application_error")) == 1

    async def test_a_page_that_is_shown_is_a_page_view(self) -> None:
        self.options = {"page_views": PageViews()}
        headers = [
            (b"host", b"shop.example"),
            (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            (b"referer", b"https://www.google.com/search?q=secret"),
            (b"sec-fetch-dest", b"document"),
        ]
        app = self.made(("/items/{item}", "page"), ("/plain", "hello"))
        server = await self.get(app, "/items/7", headers=headers, query_string=b"utm_campaign=spring&token=secret")
        await self.get(app, "/plain", headers=headers)
        await self.get(app, "/nowhere", headers=headers)

        assert server.status == 200
        assert server.body == b"<p>hello</p>"
        [view] = self.analytics.of("page_view")
        assert view.data == {
            "page": self.template("/items/{item}"),
            "referrer": "www.google.com",
            "channel": "organic_search",
            "utm_campaign": "spring",
        }
        request = self.analytics.of("api_request")[0]
        [tracked] = self.analytics.of("cart_filled")
        assert view.context is not None
        assert request.context is not None
        assert tracked.context is not None
        assert len(view.context["visitor"]) == 32
        assert tracked.context == view.context
        assert view.context["request_id"] == request.context["request_id"]
        assert not {"visitor", "device", "geo"} & set(request.context)

    async def test_without_page_views_a_page_is_a_request_only(self) -> None:
        await self.get(self.made(("/items/{item}", "page")), "/items/7")

        assert [event.event_type for event in self.analytics.events] == ["cart_filled", "api_request"]
        assert all("visitor" not in (event.context or {}) for event in self.analytics.events)

    async def test_nothing_is_changed_but_the_events(self) -> None:
        for path in ("/items/7", "/nowhere", "/boom", "/refused"):
            self.options = {"page_views": PageViews()} if path == "/items/7" else {}
            routes = (("/items/{item}", "hello"), ("/boom", "boom"), ("/refused", "refused"))
            without = await self.get(self.application(*routes), path)
            with_it = await self.get(self.made(*routes), path)
            assert _comparable(with_it.sent) == _comparable(without.sent)

    async def test_no_frame_of_a_failed_request_is_kept(self) -> None:
        app = self.made(("/heavy", "heavy"))
        await self.get(app, "/heavy")
        gc.collect()

        assert len(self.analytics.of("application_error")) == 1
        assert Heavy.alive() == 0

    async def test_lifespan_goes_through(self) -> None:
        if not self.has_lifespan:
            pytest.skip("the framework has no lifespan")
        server = Server([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        app = self.made(("/", "hello"))
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        await app(scope, server.receive, server.send)

        assert [message["type"] for message in server.sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        assert self.analytics.events == []


def _comparable(sent: list[Message]) -> list[Message]:
    volatile = {b"date", b"x-request-id"}
    return [
        {**message, "headers": sorted(h for h in message["headers"] if h[0] not in volatile)}
        if "headers" in message
        else dict(message)
        for message in sent
    ]


class Heavy:
    """Something large on the frame of a handler that fails."""

    _alive: ClassVar[weakref.WeakSet[Heavy]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._alive.add(self)

    @classmethod
    def alive(cls) -> int:
        return len(cls._alive)


# -- what the handlers of every framework do; only how they answer is the framework's


def raise_unforeseen() -> None:
    raise Unforeseen("nobody knows")


def raise_heavy() -> None:
    heavy = Heavy()
    raise Unforeseen(f"heavy: {type(heavy).__name__}")


def say_who(client: Any, name: str, session: str | None = None) -> None:
    set_user(name)
    if session is not None:
        set_session(session)
    client.track(CocoonConnected(cocoon_id=COCOON))


PAGE = "<p>hello</p>"


def fill_cart(client: Any) -> None:
    client.track(events.track("cart_filled"))


def report(client: Any) -> None:
    error = KeyError("k")
    reported = [client.track_error(error), client.track_error(error)]
    assert reported == [True, False]
