"""WebSocket connections: one event each, however they end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import App, Message, Receive, Scope, Send, Server, run, websocket_scope

CONNECT: Message = {"type": "websocket.connect"}
ACCEPT: Message = {"type": "websocket.accept"}


def disconnect(code: int | None = 1000) -> Message:
    return {"type": "websocket.disconnect"} | ({} if code is None else {"code": code})


async def connection(
    analytics: CapturedEvents, app: App, *incoming: Message, raises: type[BaseException] | None = None, **options: Any
) -> dict[str, Any]:
    """Return the data of the one event of a connection."""
    app = AnalyticsMiddleware(app, client=analytics.client, **options)
    with pytest.raises(raises) if raises else contextlib.nullcontext():
        await run(app, websocket_scope("/ws"), [CONNECT, *incoming])
    [event] = analytics.of("api_request")
    assert event.data["method"] == "WEBSOCKET"
    return event.data


def answering(*messages: Message, then: BaseException | None = None) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return app


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and listen until the client leaves; Starlette's WebSocket does it so."""
    await receive()
    await send(ACCEPT)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        await send({"type": "websocket.send", "text": message["text"]})


async def test_accepted_and_closed_by_the_application(analytics: CapturedEvents) -> None:
    words: list[Message] = [
        {"type": "websocket.send", "text": "grüß"},
        {"type": "websocket.send", "bytes": b"abc"},
    ]
    data = await connection(analytics, answering(ACCEPT, *words, {"type": "websocket.close", "code": 4001}))

    assert (data["status_code"], data["outcome"], data["close_code"]) == (101, "ok", 4001)
    assert data["response_bytes"] == 6 + 3
    assert data["ttfb_ms"] <= data["duration_ms"]


@pytest.mark.parametrize(
    ("code", "outcome", "stored"),
    [
        (1000, "ok", 1000),
        (1001, "ok", 1001),
        (None, "ok", 1005),
        (1006, "disconnected", 1006),
        (1011, "disconnected", 1011),
    ],
)
async def test_the_close_code_of_the_client_says_how_it_was(
    analytics: CapturedEvents, code: int | None, outcome: str, stored: int
) -> None:
    incoming = [{"type": "websocket.receive", "text": "a"}, disconnect(code)]
    data = await connection(analytics, listening, *incoming, raises=WebSocketDisconnect)

    assert (data["status_code"], data["outcome"], data["close_code"]) == (101, outcome, stored)
    assert data["error_type"] is None
    assert analytics.of("application_error") == []


async def test_a_disconnect_that_the_application_handles_is_the_same(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await listening(scope, receive, send)

    data = await connection(analytics, app, disconnect(1006))

    assert (data["outcome"], data["close_code"]) == ("disconnected", 1006)


async def test_a_close_before_accept_is_403(analytics: CapturedEvents) -> None:
    data = await connection(analytics, answering({"type": "websocket.close", "code": 1008}))

    assert (data["status_code"], data["outcome"], data["close_code"]) == (403, "ok", None)


async def test_a_rejection_has_its_status(analytics: CapturedEvents) -> None:
    rejection: list[Message] = [
        {"type": "websocket.http.response.start", "status": 401, "headers": []},
        {"type": "websocket.http.response.body", "body": b"who?", "more_body": False},
    ]
    data = await connection(analytics, answering(*rejection))

    assert (data["status_code"], data["outcome"], data["response_bytes"]) == (401, "ok", 4)


async def test_raised_before_accept_is_500(analytics: CapturedEvents) -> None:
    data = await connection(analytics, answering(then=ValueError("no")), raises=ValueError)

    assert (data["status_code"], data["outcome"], data["error_type"]) == (500, "error", "ValueError")
    assert len(analytics.of("application_error")) == 1


async def test_raised_after_accept_is_an_error_of_the_connection(analytics: CapturedEvents) -> None:
    data = await connection(analytics, answering(ACCEPT, then=ValueError("no")), raises=ValueError)

    assert (data["status_code"], data["outcome"], data["close_code"]) == (101, "error", None)


async def test_raised_after_the_client_left_is_an_error_too(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            await listening(scope, receive, send)
        raise ValueError("while tidying up")

    data = await connection(analytics, app, disconnect(1000), raises=ValueError)

    assert (data["outcome"], data["close_code"]) == ("error", 1000)


async def test_gone_before_an_answer_is_499(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    data = await connection(analytics, app, disconnect(1006))

    assert (data["status_code"], data["outcome"]) == (499, "disconnected")


async def test_returned_without_a_word_is_500(analytics: CapturedEvents) -> None:
    data = await connection(analytics, answering())

    assert (data["status_code"], data["outcome"]) == (500, "error")


async def test_cancelled(analytics: CapturedEvents) -> None:
    task = asyncio.create_task(connection(analytics, listening))
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    [event] = analytics.of("api_request")
    assert (event.data["status_code"], event.data["outcome"]) == (101, "cancelled")


async def test_an_oserror_out_of_send_is_disconnected(analytics: CapturedEvents) -> None:
    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise ConnectionResetError("gone")

    app = AnalyticsMiddleware(answering(ACCEPT, {"type": "websocket.send", "text": "a"}), client=analytics.client)
    with pytest.raises(ConnectionResetError):
        await app(websocket_scope(), Server([CONNECT]).receive, send)

    [event] = analytics.of("api_request")
    assert (event.data["status_code"], event.data["outcome"]) == (101, "disconnected")


async def test_messages_are_observed_and_not_altered(analytics: CapturedEvents) -> None:
    incoming: list[Message] = [CONNECT, {"type": "websocket.receive", "text": "a"}, disconnect()]
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend([await receive() for _ in range(3)])
        await send(ACCEPT)

    sent = await run(AnalyticsMiddleware(app, client=analytics.client), websocket_scope(), incoming)

    assert all(one is other for one, other in zip(got, incoming, strict=True))
    assert sent == [ACCEPT]
    assert sent[0] is ACCEPT


async def test_websockets_can_be_left_out(analytics: CapturedEvents) -> None:
    got: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend((receive, send))

    server = Server()
    receive, send = server.receive, server.send
    await AnalyticsMiddleware(app, client=analytics.client, capture_websockets=False)(websocket_scope(), receive, send)

    assert got == [receive, send]
    assert analytics.events == []


async def test_the_template_of_a_mounted_websocket_route(analytics: CapturedEvents) -> None:
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)

    app = Starlette(routes=[Mount("/t/{tenant}", routes=[WebSocketRoute("/chat/{room}", chat)])])
    for path in ("/t/acme/chat/1", "/nowhere"):
        await run(AnalyticsMiddleware(app, client=analytics.client), websocket_scope(path), [CONNECT])

    found, missed = (event.data for event in analytics.of("api_request"))
    assert (found["endpoint"], found["status_code"], found["close_code"]) == ("/t/{tenant}/chat/{room}", 101, 1000)
    assert (missed["endpoint"], missed["status_code"], missed["outcome"]) == (None, 403, "ok")
