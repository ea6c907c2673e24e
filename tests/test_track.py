"""track() is called from anywhere, and takes along what surrounds an event."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import TracerProvider

from asgi_analytics import AnalyticsClient, Event, MemorySink, events
from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import capture_events
from tests.kit.fakes import until

pytestmark = pytest.mark.usefixtures("outside_a_request")

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


class Postcard(Event):
    text: Any = ""


# -- from anywhere


def test_events_are_taken_from_threads_loops_and_no_loop() -> None:
    with capture_events(strict=True) as captured:

        async def on_a_loop() -> None:
            await asyncio.gather(*(asyncio.to_thread(captured.client.track, TASK) for _ in range(3)))
            captured.client.track(TASK)

        captured.client.track(TASK)
        asyncio.run(on_a_loop())
        thread = threading.Thread(target=asyncio.run, args=(on_a_loop(),))
        thread.start()
        thread.join()
    assert len(captured.events) == 9


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
def test_events_are_taken_from_a_signal_handler_that_interrupts_track_and_stats() -> None:
    client = AnalyticsClient(service="shop", queue_size=1_000_000)
    handled: list[bool] = []  # appended to: the handler interrupts itself too
    refused: list[bool] = []

    def handle(*_: Any) -> None:
        handled.append(client.track(TASK))
        refused.append(client.track(Postcard(text=object())))
        stats = client.stats()
        assert stats.accepted == stats.queued + stats.in_flight + stats.stored

    # The first event of a class takes its encoder's writing: handlers that interrupt that, and each other's, a hundred
    # deep, come to the end of the interpreter's stack on a slow machine, and their events are dropped for that.
    handle()
    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(3_000):
            handled.append(client.track(TASK))
            refused.append(client.track(Postcard(text=object())))
            client.stats()
            batch = client._ledger.take(50, 1 << 20)
            client._ledger.settle(batch, duplicates=0, rejected=[])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    stats = client.stats()
    assert stats.accepted == sum(handled) == len(handled)
    assert stats.dropped["invalid"] == len(refused)
    assert not any(refused)


def test_events_are_taken_from_a_garbage_collector_callback() -> None:
    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            client.track(TASK)

    client = AnalyticsClient(service="shop")

    def callback(phase: str, info: dict[str, int]) -> None:
        client.track(TASK)

    gc.callbacks.append(callback)
    try:
        Cyclic()
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert client.stats().accepted >= 3


def test_events_are_taken_from_a_log_handler_of_our_own_log() -> None:
    client = AnalyticsClient.from_url("memory://", service="shop", queue_size=1, flush_interval=0.01)

    class Tracking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            client.track(Postcard(text=record.getMessage()))

    handler = Tracking()
    logging.getLogger("asgi_analytics").addHandler(handler)
    try:
        client.track(Postcard(text=object()))
        assert isinstance(client.sink, MemorySink)
        until(lambda: client.sink.events)
    finally:
        logging.getLogger("asgi_analytics").removeHandler(handler)
        client.close(5)
    assert "dropped (invalid): 1" in client.sink.events[0].data["text"]


# -- what surrounds an event


def test_the_request_names_user_session_and_request() -> None:
    request = RequestContext()
    request.session_id, request.request_id = "s1", "r1"
    request.span = (0xABC, 0xDEF)
    token = current.set(request)
    with capture_events(strict=True) as captured:
        captured.client.track(Postcard())
    current.reset(token)
    [event] = captured.events
    context = event.context or {}
    assert (event.session_id, context["request_id"], context["trace_id"], context["span_id"]) == (
        "s1",
        "r1",
        f"{0xABC:032x}",
        f"{0xDEF:016x}",
    )


def test_a_span_names_its_trace() -> None:
    tracer = TracerProvider().get_tracer("test")
    with capture_events(strict=True) as captured:
        with tracer.start_as_current_span("buying") as span:
            captured.client.track(Postcard())
            captured.client.track(Postcard(text=[1]))
        captured.client.track(Postcard())
    first, second, third = (event.context or {} for event in captured.events)
    expected = span.get_span_context()
    assert (first["trace_id"], first["span_id"]) == (f"{expected.trace_id:032x}", f"{expected.span_id:016x}")
    assert second["trace_id"] == first["trace_id"]
    assert (third["trace_id"], third["span_id"]) == (None, None)


def test_a_span_wins_over_what_the_request_remembers() -> None:
    request = RequestContext()
    request.span = (0xABC, 0xDEF)
    token = current.set(request)
    with (
        capture_events(strict=True) as captured,
        TracerProvider().get_tracer("test").start_as_current_span("x") as span,
    ):
        captured.client.track(Postcard())
    current.reset(token)
    assert (captured.events[0].context or {})["span_id"] == f"{span.get_span_context().span_id:016x}"
