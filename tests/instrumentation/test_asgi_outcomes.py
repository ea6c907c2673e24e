"""The middleware around bare ASGI applications: status, outcome, durations and sizes."""

from __future__ import annotations

import asyncio
import time

import pytest

from asgi_analytics.testing import CapturedEvents
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

# -- status, outcome


async def test_raised_before_the_start_is_500(analytics: CapturedEvents) -> None:
    with pytest.raises(ValueError, match="no"):
        await get(wrapped(sending(then=ValueError("no")), analytics))

    request = the_request(analytics)
    assert (request["status_code"], request["outcome"], request["error_type"]) == (500, "error", "ValueError")
    assert request["ttfb_ms"] is None
    assert request["response_bytes"] is None


async def test_raised_after_the_start_keeps_the_status(analytics: CapturedEvents) -> None:
    with pytest.raises(ValueError, match="no"):
        await get(wrapped(sending(start(206), body(more_body=True), then=ValueError("no")), analytics))

    request = the_request(analytics)
    assert (request["status_code"], request["outcome"], request["error_type"]) == (206, "error", "ValueError")
    assert request["response_bytes"] == 5


async def test_raised_after_the_last_message_is_a_background_task(analytics: CapturedEvents) -> None:
    with pytest.raises(ValueError, match="no"):
        await get(wrapped(sending(start(), body(), then=ValueError("no")), analytics))

    request = the_request(analytics)
    [error] = analytics.of("application_error")
    assert (request["status_code"], request["outcome"], request["error_type"]) == (200, "ok", None)
    assert error.data["handled"] is False


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_an_answered_problem_is_ok(analytics: CapturedEvents, status: int) -> None:
    await get(wrapped(sending(start(status), body()), analytics))

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (status, "ok")


async def test_what_an_error_handler_answers_and_raises_again_is_an_error(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            raise KeyError("k")
        except KeyError:
            await send(start(418))
            await send(body())
            raise

    with pytest.raises(KeyError):
        await get(wrapped(app, analytics))

    request = the_request(analytics)
    assert (request["status_code"], request["outcome"], request["error_type"]) == (418, "error", "KeyError")


async def test_a_cancelled_request_is_499(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(get(wrapped(app, analytics)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    request = the_request(analytics)
    assert (request["status_code"], request["outcome"], request["error_type"]) == (499, "cancelled", None)
    assert analytics.of("application_error") == []


async def test_cancelled_after_the_start_keeps_the_status(analytics: CapturedEvents) -> None:
    with pytest.raises(asyncio.CancelledError):
        await get(wrapped(sending(start(), then=asyncio.CancelledError()), analytics))

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (200, "cancelled")


class ClientDisconnect(Exception):
    """As Starlette calls it."""


@pytest.mark.parametrize(
    "gone",
    [
        ClientDisconnect(),
        ExceptionGroup("tasks", [ClientDisconnect()]),
        ExceptionGroup("tasks", [ClientDisconnect(), ExceptionGroup("more", [ClientDisconnect()])]),
    ],
)
async def test_a_client_that_left_is_disconnected(analytics: CapturedEvents, gone: Exception) -> None:
    with pytest.raises(type(gone)):
        await get(wrapped(sending(then=gone), analytics))

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (499, "disconnected")
    assert analytics.of("application_error") == []


async def test_an_oserror_out_of_send_is_disconnected(analytics: CapturedEvents) -> None:
    async def send(message: Message) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await wrapped(hello, analytics)(http_scope(), Server().receive, send)

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (499, "disconnected")


async def test_an_oserror_out_of_send_in_other_clothes_is_disconnected(analytics: CapturedEvents) -> None:
    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError("gone")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await hello(scope, receive, send)
        except OSError as error:
            raise RuntimeError("cannot send") from error

    with pytest.raises(RuntimeError):
        await wrapped(app, analytics)(http_scope(), Server().receive, send)

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (200, "disconnected")


async def test_an_oserror_of_the_application_is_an_error(analytics: CapturedEvents) -> None:
    with pytest.raises(ConnectionRefusedError):
        await get(wrapped(sending(then=ConnectionRefusedError("the database")), analytics))

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (500, "error")


async def test_a_response_without_its_last_message_is_disconnected(analytics: CapturedEvents) -> None:
    await get(wrapped(sending(start(), body(more_body=True)), analytics))

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (200, "disconnected")


class ServerThatKnows(Server):
    """Tells, as uvicorn and Hypercorn do, whether the client has left."""

    disconnected = True
    closed = True


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def test_returned_without_an_answer_is_an_error_with_500(analytics: CapturedEvents) -> None:
    await run(wrapped(returning, analytics), http_scope())

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (500, "error")
    assert analytics.of("application_error") == []


@pytest.mark.parametrize("by", ["receive", "send"])
async def test_nothing_sent_to_a_client_that_is_known_to_have_left_is_499(analytics: CapturedEvents, by: str) -> None:
    knowing, other = ServerThatKnows(), Server()
    receive = knowing.receive if by == "receive" else other.receive
    send = knowing.send if by == "send" else other.send
    await wrapped(returning, analytics)(http_scope(), receive, send)

    assert (the_request(analytics)["status_code"], the_request(analytics)["outcome"]) == (499, "disconnected")


async def test_a_group_with_an_error_in_it_is_an_error(analytics: CapturedEvents) -> None:
    group = ExceptionGroup("tasks", [ClientDisconnect(), ValueError("no")])
    with pytest.raises(ExceptionGroup):
        await get(wrapped(sending(then=group), analytics))

    assert the_request(analytics)["outcome"] == "error"
    assert the_request(analytics)["error_type"] == "ExceptionGroup"
    assert len(analytics.of("application_error")) == 1


async def test_a_group_of_one_is_that_one(analytics: CapturedEvents) -> None:
    with pytest.raises(ExceptionGroup):
        await get(wrapped(sending(then=ExceptionGroup("tasks", [ValueError("no")])), analytics))

    assert the_request(analytics)["error_type"] == "ValueError"
    assert analytics.of("application_error")[0].data["error_type"] == "ValueError"


# -- durations and bodies


async def test_background_work_is_outside_of_the_duration_and_streams_are_inside(analytics: CapturedEvents) -> None:
    sent_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.02)
        await send(start())
        for part in (b"abc", b"de", b""):
            await asyncio.sleep(0.01)
            await send(body(part, more_body=bool(part)))
        sent_at.append(time.perf_counter())
        await asyncio.sleep(0.05)

    started = time.perf_counter()
    await get(wrapped(app, analytics))

    request = the_request(analytics)
    assert request["response_bytes"] == 5
    assert 20 <= request["ttfb_ms"] <= request["duration_ms"] - 29
    assert request["duration_ms"] <= (sent_at[0] - started) * 1000


async def test_trailers_end_the_response(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(trailers=True))
        await send(body())
        await asyncio.sleep(0.02)
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": True})
        await send({"type": "http.response.trailers", "headers": [], "more_trailers": False})

    await get(wrapped(app, analytics))

    assert the_request(analytics)["outcome"] == "ok"
    assert the_request(analytics)["duration_ms"] >= 20


async def test_trailers_that_never_come_are_missing(analytics: CapturedEvents) -> None:
    await get(wrapped(sending(start(trailers=True), body()), analytics))

    assert the_request(analytics)["outcome"] == "disconnected"


async def test_pathsend_and_zerocopysend_end_the_response(analytics: CapturedEvents) -> None:
    await get(wrapped(sending(start(), {"type": "http.response.pathsend", "path": "/tmp/x"}), analytics))
    zero = {"type": "http.response.zerocopysend", "file": 3, "count": 11, "more_body": True}
    await get(wrapped(sending(start(), zero, body(b"x")), analytics))

    path, copied = (event.data for event in analytics.of("api_request"))
    assert (path["outcome"], path["response_bytes"]) == ("ok", None)
    assert (copied["outcome"], copied["response_bytes"]) == ("ok", 12)
