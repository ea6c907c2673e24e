"""HTTP: what is noted of the messages of a response, and what the client got in the end."""

from __future__ import annotations

from sys import exception
from time import perf_counter_ns
from typing import TYPE_CHECKING

from opentelemetry.context import get_current

from asgi_analytics.instrumentation.page_views import shows_html
from asgi_analytics.instrumentation.requests.request import CapturedRequest, Exchange
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.types import Message, Receive

MOST_MESSAGES = 100
"""How many unread parts of a request's body are passed over in search of the client's disconnect."""


def _note(request: CapturedRequest, message: Message) -> None:
    try:
        kind = message["type"]
        if kind == "http.response.body":
            if (body := message.get("body")) and request.response_bytes is not None:
                request.response_bytes += len(body)
            if not message.get("more_body") and not request.has_trailers and request.ended is None:
                request.ended = perf_counter_ns()
        elif kind == "http.response.start":
            if request.status is None:
                _note_start(request, message)
        else:
            _note_extension(request, kind, message)
    except Exception as error:
        log_problem("send", "a message of a response was not captured: %s", failure(error))


def _note_start(request: CapturedRequest, message: Message) -> None:
    request.ttfb = perf_counter_ns() - request.started
    request.status = message["status"]
    if message.get("trailers"):
        request.has_trailers = True
    if request.plan.page_views is not None and request.method == "GET":
        request.shows_html = shows_html(request.status, message.get("headers") or ())
    # An error handler answers from within its except block: what is raised again is not raised anew.
    if (answering := exception()) is not None:
        request.answering = answering
    if trace := get_current():  # a span inside of this middleware has ended when the request ends
        request.trace = trace


def _note_extension(request: CapturedRequest, kind: str, message: Message) -> None:
    if kind == "http.response.trailers":
        if not message.get("more_trailers", False):
            _complete(request)
    elif kind == "http.response.pathsend":
        request.response_bytes = None  # the server reads the file; looking at its size would be I/O
        _complete(request)
    elif kind == "http.response.zerocopysend":
        count = message.get("count")
        if count is None:
            request.response_bytes = None
        elif request.response_bytes is not None:
            request.response_bytes += count
        if not message.get("more_body", False) and not request.has_trailers:
            _complete(request)


def _complete(request: CapturedRequest) -> None:
    if request.ended is None:
        request.ended = perf_counter_ns()


def _answered(request: CapturedRequest) -> int:
    if request.status is None:
        return _unanswered(request)
    if request.ended is None and request.outcome == "ok":
        request.outcome = "disconnected"
    if request.method == "HEAD":
        request.response_bytes = 0  # the server sends no body, whatever the application gives it
    return int(request.status)


def _unanswered(request: CapturedRequest) -> int:
    """Return the status of a request for which the application has sent nothing."""
    request.response_bytes = None
    if request.outcome == "error":
        return 500
    if request.outcome == "ok" and not _has_left(request):
        request.outcome = "error"  # it returned while the client waits: the server answers with a 500
        return 500
    if request.outcome == "ok":
        request.outcome = "disconnected"
    return 499


def _has_left(request: CapturedRequest) -> bool:
    """Tell whether the client is known to have left."""
    uvicorn = getattr(getattr(request.receive, "__self__", None), "disconnected", None)
    if isinstance(uvicorn, bool):
        return uvicorn
    hypercorn = getattr(getattr(request.server_send, "__self__", None), "closed", None)
    return hypercorn is True or _receives_disconnect(request.receive)


def _receives_disconnect(receive: Receive) -> bool:
    """Tell whether the server has nothing left to hand out but the disconnect of the client; does not wait.

    The application has returned: no other code receives any more.
    """
    try:
        for _ in range(MOST_MESSAGES):
            step = receive().__await__()
            try:
                next(step)
            except StopIteration as received:
                if received.value["type"] == "http.disconnect":
                    return True
            else:  # it would wait: the client is still there
                step.close()
                return False
    except Exception:  # a server that does not answer any more
        return False
    return False


HTTP = Exchange(note=_note, answered=_answered)
