"""The compiled way says what the way in Python says, and is a coroutine to whoever runs it."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import threading
import time
import types
import weakref
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, capture_errors, set_session, set_user
from asgi_analytics._context import RequestContext, current
from asgi_analytics.events import minting
from asgi_analytics.events.identity import mint
from asgi_analytics.instrumentation import asyncpg, asyncpg_rows
from asgi_analytics.instrumentation.queries import QueryRecorder
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.asgi_app import Message, hello, http_scope
from tests.instrumentation.test_query_lines import REQUESTS, STATEMENTS, request_of

__all__ = ["request_of"]  # a fixture

pytest.importorskip("asgi_analytics.instrumentation.ordinary", reason="a build without a compiler has one way only")

USER = UUID("0198a5b2-0000-7000-8000-000000000001")
USERS: dict[str, Any] = {
    "nobody": lambda scope: None,
    "a UUID": lambda scope: USER,
    "a name": lambda scope: 'ü"\x00\ud800',
    "a number": lambda scope: -42,
    "a long name": lambda scope: "x" * 5_000,
    "no id": lambda scope: True,
    "an error": lambda scope: scope["there is none"],
}
STEPS: dict[str, Message | str] = {
    "start": {"type": "http.response.start", "status": 200, "headers": []},
    "not found": {"type": "http.response.start", "status": 404},
    "with trailers": {"type": "http.response.start", "status": 200, "trailers": True},
    "an odd start": {"type": "http.response.start", "status": "201"},
    "no status": {"type": "http.response.start"},
    "more": {"type": "http.response.body", "body": b"some", "more_body": True},
    "last": {"type": "http.response.body", "body": b"all", "more_body": False},
    "empty": {"type": "http.response.body"},
    "a view": {"type": "http.response.body", "body": memoryview(b"seen")},
    "odd body": {"type": "http.response.body", "body": 5},
    "trailers": {"type": "http.response.trailers", "headers": []},
    "a file": {"type": "http.response.pathsend", "path": "/tmp/file"},
    "zero copies": {"type": "http.response.zerocopysend", "count": 7},
    "no type": {"body": b"x"},
    "unknown": {"type": "http.response.debug"},
    "user": "user",
    "session": "session",
    "wait": "wait",
    "an error": "error",
    "an OSError": "oserror",
    "an answer to an error": "answer",
    "a cancellation": "cancel",
    "an exit": "exit",
}
HEADERS: dict[str, Any] = {
    "none": [],
    "tuples": [(b"host", b"h"), (b"x-request-id", b"abc-1"), (b"x-request-ix", b"other")],
    "lists": [[b"host", b"h"], [b"x-request-id", b'a"\\b']],
    "twice": [(b"x-request-id", b"first"), (b"x-request-id", b"second")],
    "not to be stored": [(b"x-request-id", b"\xff")],
    "too long": [(b"x-request-id", b"x" * 300)],
    "an iterator's": ((b"x-request-id", b"abc"),),
    "missing": None,
}


class Left(BaseException):
    """What ends a program."""


async def act(step: Message | str, send: Any) -> None:
    match step:
        case "user":
            set_user("ada")
        case "session":
            set_session("s-1")
        case "wait":
            await asyncio.sleep(0)
        case "error":
            raise ValueError("wrong")
        case "oserror":
            raise ConnectionResetError("away")
        case "answer":
            try:
                raise KeyError("inside")
            except KeyError:
                await send({"type": "http.response.start", "status": 500})
                await send({"type": "http.response.body"})
                raise
        case "cancel":
            raise asyncio.CancelledError
        case "exit":
            raise Left
        case _:
            await send(step)


def converse(
    steps: list[str], user: str, headers: str, method: str, breaks: tuple[int, type[Exception]] | None, compiled: bool
) -> list[Any]:
    """Return all that can be seen of two conversations: by the server, by the caller, and in the events."""
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for step in steps:
            await act(STEPS[step], send)

    async def send(message: Message) -> None:
        seen.append(message)
        if breaks is not None and len(seen) == breaks[0]:
            raise breaks[1]("broken")
        await asyncio.sleep(0)

    class Application:
        __call__ = staticmethod(application)

    async def main(captured: CapturedEvents) -> None:
        app: Any = AnalyticsMiddleware(
            Starlette(routes=[Route("/things/{id}", Application(), methods=None)]),
            client=captured.client,
            user_id=USERS[user],
        )
        if not compiled:
            app._runner = SimpleNamespace(start=app._run)
        for _ in range(2):  # the second one finds its route among those that are known
            scope = http_scope("/things/7", method) | {"headers": HEADERS[headers]}
            try:
                seen.append(await app(scope, hello, send))
            except BaseException as error:
                seen.append((type(error), str(error)))
            assert current.get() is None
            assert "asgi_analytics.request" not in scope

    with capture_events(service='s"ü') as captured:
        asyncio.run(main(captured))
        for event in captured.events:
            data = {key: value for key, value in event.data.items() if key not in ("duration_ms", "ttfb_ms", "stack")}
            context = dict(event.context or {})
            if len(context["request_id"] or "") == 32:  # made for a request that came without
                del context["request_id"]
            seen.append((event.event_type, data, event.user_id, event.session_id, context, "ttfb_ms" in event.data))
    return seen


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=5)
    | st.lists(st.sampled_from(sorted(STEPS)), max_size=3).map(lambda more: ["start", "last", *more]),
    user=st.sampled_from(sorted(USERS)),
    headers=st.sampled_from(sorted(HEADERS)),
    method=st.sampled_from(["GET", "HEAD", "POST", "BREW"]),
    breaks=st.none() | st.tuples(st.integers(1, 4), st.sampled_from([OSError, BrokenPipeError, RuntimeError])),
)
def test_both_ways_see_the_same_of_any_conversation(
    steps: list[str], user: str, headers: str, method: str, breaks: tuple[int, type[Exception]] | None
) -> None:
    by_the_compiler = converse(steps, user, headers, method, breaks, True)
    assert by_the_compiler == converse(steps, user, headers, method, breaks, False)


def replaced(captured: Any, original: Any, *, compiled: bool = True) -> Any:
    """Return a class with a method ``fetch`` that is captured, and the tags that are asked for."""
    recorder = QueryRecorder(captured.client, slow_ms=None, sample_rate=1.0, capture_statement=True)
    tap: Any = SimpleNamespace(recorders=[recorder], tags={})
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(asyncpg, "QueryMethod", None)
        fetch = vars(asyncpg)["_query"](tap, asyncpg_rows.of_list, original, tag=True)
    assert isinstance(fetch, types.FunctionType) is not compiled
    return type("Connection", (), {"fetch": fetch, "tags": tap.tags})


async def answer(self: Any, query: str, *args: Any, timeout: float | None = None) -> Any:
    """Return, or raise, the first argument."""
    await asyncio.sleep(0)
    [first] = args
    if isinstance(first, BaseException):
        raise first
    return first


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("span", [False, True])
def test_both_ways_see_the_same_of_a_query(request_of: Any, name: str, statement: str, span: bool) -> None:
    async def ask(connection: Any) -> list[Any]:
        answers: list[Any] = [await connection.fetch(statement, [1, 2]), await connection.fetch(statement, [])]
        answers.append(await connection.fetch(query=statement))  # an answer that cannot be had
        return answers

    def track(compiled: bool) -> list[Any]:
        request_of(REQUESTS[name])
        with capture_events(service='s"ü') as captured:
            connection = replaced(captured, answer, compiled=compiled)()
            with pytest.raises(ValueError, match="not enough values"):
                asyncio.run(ask(connection))
            request = current.get()
            counted = None if request is None else (request.db_queries, request.fingerprints, request.ordinary)
            found = []
            for event in captured.events:
                data = dict(event.data)
                assert 0 <= data.pop("duration_ms") < 60_000
                found.append((data, event.user_id, event.session_id, event.context))
            return [connection.tags, counted, *found]

    outer = NonRecordingSpan(SpanContext(1 << 127 | 7, 8, is_remote=False, trace_flags=TraceFlags(1)))
    with trace.use_span(outer if span else trace.INVALID_SPAN):
        by_the_compiler, in_python = track(True), track(False)
    assert by_the_compiler == in_python
    assert len(in_python) == 2 + 3 * (name != "no user id at all")


class Ada:
    is_authenticated = True
    identity = "ada of the scope"


def sign_in(scope: Any) -> None:
    scope["user"] = Ada()


WITHIN: dict[str, tuple[dict[str, Any], Any]] = {
    "nothing known": ({}, lambda scope: None),
    "a callable's user": ({"user_id": lambda scope: USER}, lambda scope: None),
    "a callable's number": ({"user_id": lambda scope: 7}, lambda scope: None),
    "a long name": ({"user_id": lambda scope: "x" * 5_000}, lambda scope: None),
    "a callable that fails": ({"user_id": lambda scope: scope["there is none"]}, lambda scope: None),
    "a callable's session": ({"session_id": lambda scope: "s-1"}, lambda scope: None),
    "a callable's number as session": ({"session_id": lambda scope: 5}, lambda scope: None),
    "a user of the scope": ({}, sign_in),
    "a user who was set": ({"user_id": lambda scope: USER}, lambda scope: set_user("ada")),
    "nobody who was set": ({"user_id": lambda scope: USER}, lambda scope: set_user(None)),
    "a session that was set": ({}, lambda scope: set_session("s-2")),
    "a session that was taken back": ({"session_id": lambda scope: "s-1"}, lambda scope: set_session(None)),
    "a callable's endpoint": ({"endpoint": lambda scope: "/named"}, lambda scope: None),
    "below an application of another root": ({}, lambda scope: scope.update(app_root_path="/below")),
    "without its route": ({}, lambda scope: scope.pop("route", None)),
    "with another route": ({}, lambda scope: scope.update(route=object())),
    "a trace": ({}, lambda scope: None),
}


@pytest.mark.parametrize("name", WITHIN)
@pytest.mark.parametrize("headers", ["none", "tuples", "not to be stored", "too long"])
def test_both_ways_see_the_same_of_queries_within_a_request(name: str, headers: str) -> None:
    options, act_within = WITHIN[name]
    outer = NonRecordingSpan(SpanContext(1 << 127 | 7, 8, is_remote=False, trace_flags=TraceFlags(1)))

    def ask(compiled: bool) -> list[Any]:
        with capture_events() as captured:
            connection = replaced(captured, answer, compiled=compiled)()

            async def handler(scope: Any, receive: Any, send: Any) -> None:
                await connection.fetch("SELECT 1", [])
                act_within(scope)
                with trace.use_span(outer if name == "a trace" else trace.INVALID_SPAN):
                    for _ in range(2):
                        await connection.fetch("SELECT * FROM t WHERE id = $1", [])
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body"})

            class Handler:
                __call__ = staticmethod(handler)

            class Early:
                """Asks before there is a route."""

                def __init__(self, app: Any) -> None:
                    self.app = app

                async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                    await connection.fetch("SELECT 2", [])
                    await self.app(scope, receive, send)

            app = Starlette(routes=[Mount("/in", routes=[Route("/{id}", Handler())]), Route("/things/{id}", Handler())])
            app.add_middleware(Early)
            around: Any = AnalyticsMiddleware(app, client=captured.client, **options)

            async def send(message: Message) -> None:
                pass

            async def main() -> None:
                for path in ("/things/7", "/things/8", "/in/9"):
                    await around(http_scope(path) | {"headers": HEADERS[headers]}, hello, send)

            asyncio.run(main())
            found = []
            for event in captured.events:
                data = {key: value for key, value in event.data.items() if not key.endswith("_ms")}
                context = dict(event.context or {})
                if len(context["request_id"] or "") == 32:
                    del context["request_id"]
                found.append((event.event_type, data, event.user_id, event.session_id, context))
            return found

    by_the_compiler = ask(True)
    assert by_the_compiler == ask(False)
    assert [event[0] for event in by_the_compiler] == (["database_query"] * 4 + ["api_request"]) * 3
    if name == "nothing known":
        assert [event[1]["endpoint"] for event in by_the_compiler[1:5]] == ["/things/{id}"] * 4


def test_both_ways_know_a_route_that_another_application_hides() -> None:
    def ask(compiled: bool) -> list[str | None]:
        with capture_events() as captured:
            connection = replaced(captured, answer, compiled=compiled)()

            async def handler(scope: Any, receive: Any, send: Any) -> None:
                await connection.fetch("SELECT 1", [])
                await hello(scope, receive, send)

            class Handler:
                __call__ = staticmethod(handler)

            inner = Starlette(routes=[Route("/things/{id}", Handler())])

            async def hidden(scope: Any, receive: Any, send: Any) -> None:
                await inner(scope, receive, send)

            outer = Starlette(routes=[Mount("/in", hidden)])

            async def either(scope: Any, receive: Any, send: Any) -> None:
                await (outer if scope["path"].startswith("/in") else inner)(scope, receive, send)

            async def send(message: Message) -> None:
                pass

            async def main() -> None:
                app: Any = AnalyticsMiddleware(either, client=captured.client)
                for path in ("/things/7", "/things/8", "/in/things/9"):
                    await app(http_scope(path), None, send)

            asyncio.run(main())
            return [event.data["endpoint"] for event in captured.of("database_query")]

    by_the_compiler = ask(True)
    assert by_the_compiler == ask(False)
    assert by_the_compiler[:2] == ["/things/{id}"] * 2
    assert by_the_compiler[2] != "/things/{id}"


@pytest.mark.parametrize("field", ["user_id", "session_id", "endpoint", "request_id"])
async def test_a_query_of_somebody_with_a_long_name_weighs_what_it_takes(field: str) -> None:
    client = AnalyticsClient(service="shop")
    connection = replaced(SimpleNamespace(client=client), answer)()
    request = RequestContext()
    setattr(request, field, "x" * 5_000)
    token = current.set(request)
    await connection.fetch("SELECT 1", [])
    current.reset(token)
    assert client._queue.bytes_in > 5_000
    client.close(timeout=0)


async def test_ids_rise_whoever_mints_them(captured: CapturedEvents) -> None:
    connection = replaced(captured, answer)()
    begun = time.time_ns()
    ids = []
    try:
        for ahead in range(1, 300):
            await connection.fetch("SELECT 1", [])
            minting.advance(begun + ahead * 3_600_000_000_000)  # as a thread whose clock was ahead would do
            ids.append(mint())
            await connection.fetch("SELECT 1", [])
    finally:
        minting.seed()
    asked = [event.event_id for event in captured.events]
    assert len(asked) == 2 * len(ids)
    assert all(asked[2 * at] < made < asked[2 * at + 1] for at, made in enumerate(ids))


@pytest.fixture
def captured() -> Any:
    with capture_events() as captured:
        yield captured


async def forever(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await asyncio.Event().wait()


async def test_what_is_called_is_a_coroutine_function_and_what_it_returns_a_coroutine(captured: CapturedEvents) -> None:
    app = AnalyticsMiddleware(hello, client=captured.client)
    assert inspect.iscoroutinefunction(app.__call__)
    pending: Any = app(http_scope(), None, None)
    assert isinstance(pending, collections.abc.Coroutine)
    pending.close()
    pending.close()
    with pytest.raises(RuntimeError, match="already awaited"):
        await pending
    assert captured.events == []


async def test_a_cancelled_task_is_a_cancelled_request(captured: CapturedEvents) -> None:
    started = asyncio.Event()

    async def send(message: Message) -> None:
        started.set()

    pending: Any = AnalyticsMiddleware(forever, client=captured.client)(http_scope(), None, send)
    task: asyncio.Task[None] = asyncio.create_task(pending)
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [event] = captured.events
    assert (event.data["outcome"], event.data["status_code"]) == ("cancelled", 200)
    assert repr(task)  # asyncio looks for what coroutines have


async def test_a_message_whose_sending_is_cancelled_was_not_sent(captured: CapturedEvents) -> None:
    sending = asyncio.Event()

    async def send(message: Message) -> None:
        sending.set()
        await asyncio.Event().wait()

    pending: Any = AnalyticsMiddleware(forever, client=captured.client)(http_scope(), None, send)
    task: asyncio.Task[None] = asyncio.create_task(pending)
    await sending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [event] = captured.events
    assert (event.data["outcome"], event.data["status_code"]) == ("cancelled", 499)


async def test_what_the_server_has_raised_is_not_kept(captured: CapturedEvents) -> None:
    seen: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current.get())
        with contextlib.suppress(OSError):
            await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def send(message: Message) -> None:
        seen.append(message)
        if len(seen) == 2:
            raise BrokenPipeError

    await AnalyticsMiddleware(application, client=captured.client)(http_scope(), None, send)
    assert len(seen) == 4
    assert seen[0].send_error is None


@pytest.mark.parametrize("end", ["close", "throw", "forget"])
def test_a_request_that_is_given_up_is_captured(captured: CapturedEvents, end: str) -> None:
    pending: Any = AnalyticsMiddleware(forever, client=captured.client)(http_scope(), None, lambda message: _twice())
    assert pending.send(None) == "first"
    assert pending.send(None) == "second"
    if end == "close":
        pending.close()
    elif end == "throw":
        with pytest.raises(ValueError, match="mine"):
            pending.throw(ValueError("mine"))
    else:
        del pending
        gc.collect()
    [event] = captured.of("api_request")
    assert event.data["outcome"] == ("error" if end == "throw" else "cancelled")
    assert current.get() is None


class _twice:  # stands for a function that returns an awaitable which is no coroutine
    def __await__(self) -> Any:
        yield "first"
        yield "second"
        yield "third"


@types.coroutine
def _generated() -> Any:
    yield


def _generator() -> Any:
    yield


@pytest.mark.parametrize(("sends", "steps"), [(_generated, 1), (_twice, 3)])
def test_whatever_can_be_awaited_may_be_what_the_server_sends_by(
    captured: CapturedEvents, sends: Any, steps: int
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    pending: Any = AnalyticsMiddleware(application, client=captured.client)(http_scope(), None, lambda message: sends())
    assert len(list(iter(lambda: pending.send(None), "never"))) == 2 * steps
    [event] = captured.events
    assert event.data["outcome"] == "ok"


@pytest.mark.parametrize("nothing", [_generator, int])
async def test_what_cannot_be_awaited_is_an_error_of_the_application(captured: CapturedEvents, nothing: Any) -> None:
    def application(scope: Any, receive: Any, send: Any) -> Any:
        return nothing()

    with pytest.raises(TypeError, match="can't be used in 'await' expression"):
        await AnalyticsMiddleware(application, client=captured.client)(http_scope(), None, None)
    assert [event.data["error_type"] for event in captured.events] == ["TypeError", "TypeError"]


def test_lines_that_are_written_at_once_in_many_threads_do_not_mix() -> None:
    with capture_events() as captured:
        connection = replaced(captured, answer)()

        async def run(number: int) -> None:
            set_user(f"user {number}")
            for _ in range(500):
                await connection.fetch(f"SELECT * FROM t{number}", [])

        threads = [threading.Thread(target=asyncio.run, args=(run(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        keys = {(str(event.context and event.context["user_key"]), event.data["table"]) for event in captured.events}
        assert keys == {(f"user {number}", f"t{number}") for number in range(4)}
        assert len({event.event_id for event in captured.events}) == 2_000


async def test_a_line_may_be_as_long_as_its_event(captured: CapturedEvents) -> None:
    statement = f'SELECT * FROM "{chr(0x1F600) * 1_900}"'
    await replaced(captured, answer)().fetch(statement, [])
    [event] = captured.events
    assert len(event.data["statement"].encode()) > 4_096
    assert statement.startswith(event.data["statement"])


def outcomes(captured: CapturedEvents) -> list[str]:
    return [event.data["outcome"] for event in captured.events]


async def test_a_replaced_method_looks_like_what_it_replaces(captured: CapturedEvents) -> None:
    cls = replaced(captured, answer)
    for method in (cls.fetch, cls().fetch):
        assert inspect.iscoroutinefunction(method)
        assert asyncio.iscoroutinefunction(method)
        assert inspect.isroutine(method)
        assert (method.__name__, method.__doc__, method.__module__) == ("answer", answer.__doc__, __name__)
    assert inspect.signature(cls.fetch) == inspect.signature(answer)
    assert cls.fetch.__wrapped__ is answer
    assert repr(cls.fetch) == repr(answer)
    assert await cls.fetch(cls(), "SELECT 1", [1]) == [1]
    assert await cls().fetch(*["SELECT 1"], *[[2]], **{"timeout": 1}) == [2]
    assert outcomes(captured) == ["ok", "ok"]


@pytest.mark.parametrize("compiled", [True, False])
def test_a_call_that_the_method_does_not_take_is_no_query(captured: CapturedEvents, compiled: bool) -> None:
    connection = replaced(captured, answer, compiled=compiled)()

    async def call(*args: Any, **kwargs: Any) -> None:
        await connection.fetch(*args, **kwargs)

    for args, kwargs, message in (((), {}, "query"), (("SELECT 1",), {"limit": 1}, "limit")):
        with pytest.raises(TypeError, match=message):
            asyncio.run(call(*args, **kwargs))
    assert captured.events == []


@pytest.mark.parametrize("result", [[1], [], None, (1, 2), (), StopIteration(5), ValueError("a value"), "text"])
async def test_a_query_returns_what_the_method_returns(captured: CapturedEvents, result: Any) -> None:
    async def fetch(self: Any, query: str) -> Any:
        return result

    connection = replaced(captured, fetch)()
    assert await connection.fetch("SELECT 1") is result
    assert await asyncio.create_task(connection.fetch("SELECT 1")) is result
    assert await asyncio.gather(*(connection.fetch("SELECT 1") for _ in range(40))) == [result] * 40
    by_hand = connection.fetch("SELECT 1")
    with pytest.raises(StopIteration) as stop:
        by_hand.send(None)
    assert stop.value.value is result
    with pytest.raises(StopIteration) as stop_of_next:
        next(iter(connection.fetch("SELECT 1")))
    assert stop_of_next.value.value is result
    assert await connection.fetch("SELECT 1") is result
    with pytest.raises(RuntimeError, match="already awaited"):
        await by_hand


async def test_a_result_is_not_kept(captured: CapturedEvents) -> None:
    class Rows(list[Any]):
        pass

    async def fetch(self: Any, query: str) -> Any:
        return Rows()

    connection = replaced(captured, fetch)()
    rows = weakref.ref(await connection.fetch("SELECT 1"))
    assert rows() is None
    stops = []
    for _ in range(2):
        try:
            next(connection.fetch("SELECT 1"))
        except StopIteration as stop:
            stops.append(stop)
    assert type(await connection.fetch("SELECT 1")) is Rows
    assert stops[0].value is not stops[1].value  # who keeps the exception keeps its result


@pytest.mark.parametrize("end", ["close", "throw", "forget", "cycle"])
def test_a_query_that_is_given_up_is_captured(captured: CapturedEvents, end: str) -> None:
    async def fetch(self: Any, query: str) -> Any:
        return await _twice()

    held: dict[str, Any] = {}
    pending: Any = replaced(captured, fetch)().fetch("SELECT 1")
    assert (pending.send(None), pending.send(None)) == ("first", "second")
    assert pending.cr_running is False
    assert pending.cr_frame.f_code is fetch.__code__
    match end:
        case "close":
            pending.close()
            pending.close()
        case "throw":
            with pytest.raises(ValueError, match="mine"):
                pending.throw(ValueError("mine"))
        case "cycle":
            held["pending"], pending.cr_frame.f_locals["self"].held = pending, held
    held = {}
    del pending
    gc.collect()
    assert outcomes(captured) == ["error" if end == "throw" else "cancelled"]


async def test_a_query_that_is_not_begun_is_none(captured: CapturedEvents) -> None:
    connection = replaced(captured, answer)()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        connection.fetch("SELECT 1", [])
    pending = connection.fetch("SELECT 1", [])
    pending.close()
    with pytest.raises(RuntimeError, match="already awaited"):
        await pending
    with pytest.raises(ValueError, match="mine"):
        connection.fetch("SELECT 1", []).throw(ValueError("mine"))
    assert captured.events == []


async def test_queries_within_queries_and_within_collections_are_all_captured(captured: CapturedEvents) -> None:
    async def fetch(self: Any, query: str, depth: int) -> Any:
        await asyncio.sleep(0)
        gc.collect(0)
        return [depth] if depth == 0 else [depth, *await self.fetch("SELECT 1", depth - 1)]

    connection = replaced(captured, fetch)()
    found = await asyncio.gather(*(connection.fetch("SELECT 1", 20) for _ in range(5)))
    assert found == [list(range(20, -1, -1))] * 5
    assert outcomes(captured) == ["ok"] * 105


async def test_a_query_is_traced_without_our_lines(captured: CapturedEvents) -> None:
    connection = replaced(captured, answer)()
    with pytest.raises(ValueError, match="mine") as caught:
        await connection.fetch("SELECT 1", ValueError("mine"))
    assert [entry.name for entry in caught.traceback][1:] == ["answer"]
    assert outcomes(captured) == ["error"]


async def test_a_function_that_hands_on_a_query_is_observed_to_its_end(captured: CapturedEvents) -> None:
    connection = replaced(captured, answer)()

    @capture_errors(captured.client)
    def hand_on() -> Any:
        return connection.fetch("SELECT 1", ValueError("mine"))

    with pytest.raises(ValueError, match="mine"):
        await hand_on()
    assert len(captured.of("application_error")) == 1
