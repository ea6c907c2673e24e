"""What the middleware adds to a request, in process: on Starlette and on a raw ASGI application.

Compares the bare application, the least that anybody can do by hand (a wrapped ``send``, two clocks, a tuple in a
deque), AnalyticsMiddleware, the same with everything on (a user from a callable, a trace around), and the peers that
are installed: OpenTelemetry, Sentry, Apitally, prometheus-fastapi-instrumentator. Each variant lives in a process of
its own; their rounds are interleaved; the medians of the processes' CPU time count.

Run:   python benchmarks/middleware.py [--rounds 41] [--requests 2000]
Needs: starlette; for the peers opentelemetry-sdk, opentelemetry-instrumentation-starlette, sentry-sdk, apitally<1,
       prometheus-fastapi-instrumentator
Goals: Starlette with everything on at most 1.30 times the bare application, and at most 3 µs more; on a raw
       application at most 4.5 times what the minimum adds; a page with its view at most 3 µs more than one without.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.goals import at_most

USER = UUID("0198c0de-0000-7000-8000-000000000001")
HEADERS = [
    (b"host", b"shop.example.org"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    (b"accept", b"application/json"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"connection", b"keep-alive"),
    (b"cookie", b"session=0123456789abcdef"),
]


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/shops/7/lamps/8",
        "raw_path": b"/shops/7/lamps/8",
        "query_string": b"",
        "headers": HEADERS,
        "state": {},
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    pass


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def lamp(request: Request) -> JSONResponse:
        return JSONResponse({"shop": request.path_params["shop"], "lamp": request.path_params["lamp"], "price": 12.5})

    others = [Route(f"/other{number}/{{id}}", lamp) for number in range(5)]
    return Starlette(routes=[*others, Route("/shops/{shop}/lamps/{lamp:int}", lamp)])


async def raw_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Minimum:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.queue: deque[Any] = deque(maxlen=10_000)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status = 0
        started = time.perf_counter()

        async def wrapped(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, wrapped)
        finally:
            self.queue.append((scope["method"], scope["path"], status, time.perf_counter() - started))


def bare(app: Any) -> Any:
    return app


def analytics(app: Any, **options: Any) -> Any:
    from asgi_analytics import AnalyticsClient, AnalyticsMiddleware

    client = AnalyticsClient(service="shop", queue_size=1 << 30, queue_bytes=1 << 40)
    forget.append(lambda: (client._queue.items.clear(), setattr(client._queue, "bytes_in", 0)))
    return AnalyticsMiddleware(app, client=client, **options)


def everything(app: Any) -> Any:
    from opentelemetry import context, trace

    span = trace.NonRecordingSpan(trace.SpanContext(1 << 100, 1 << 50, is_remote=False))
    context.attach(trace.set_span_in_context(span))
    return analytics(app, user_id=lambda scope: USER)


def as_page(app: Any) -> Any:
    """Answer with a page, whatever the application says that it is."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        async def send_html(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [(b"content-type", b"text/html; charset=utf-8")]}
            await send(message)

        await app(scope, receive, send_html)

    return page


def page(app: Any) -> Any:
    return analytics(as_page(app))


def page_views(app: Any) -> Any:
    from asgi_analytics import PageViews

    return analytics(as_page(app), page_views=PageViews())


def opentelemetry(app: Any, **options: Any) -> Any:
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> Any:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=1 << 16))
    return OpenTelemetryMiddleware(app, tracer_provider=provider, **options)


def opentelemetry_one_span(app: Any) -> Any:
    return opentelemetry(app, exclude_spans=["receive", "send"])


def sentry(app: Any) -> Any:
    import sentry_sdk
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            pass

    sentry_sdk.init("https://key@sentry.invalid/1", traces_sample_rate=1.0, transport=Nowhere)
    return app if hasattr(app, "router") else SentryAsgiMiddleware(app)


def apitally(app: Any) -> Any:
    from apitally.starlette import ApitallyMiddleware

    app.add_middleware(
        ApitallyMiddleware, client_id="00000000-0000-4000-8000-000000000000", env="dev", openapi_url=None
    )
    return app


def prometheus(app: Any) -> Any:
    from prometheus_fastapi_instrumentator import Instrumentator

    Instrumentator().instrument(app)
    return app


forget: list[Callable[[], object]] = []
PEERS: dict[str, tuple[Callable[[Any], Any], str | None, bool]] = {
    "bare": (bare, None, True),
    "minimum by hand": (Minimum, None, True),
    "asgi-analytics": (analytics, None, True),
    "asgi-analytics, everything on": (everything, None, True),
    "asgi-analytics, a page": (page, None, True),
    "asgi-analytics, a page and its view": (page_views, None, True),
    "apitally": (apitally, "apitally", False),
    "prometheus-fastapi-instrumentator": (prometheus, "prometheus_fastapi_instrumentator", False),
    "OpenTelemetry, one span": (opentelemetry_one_span, "opentelemetry.instrumentation.asgi", True),
    "OpenTelemetry": (opentelemetry, "opentelemetry.instrumentation.asgi", True),
    "Sentry": (sentry, "sentry_sdk", True),
}


def installed(module: str | None) -> bool:
    try:
        return module is None or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


async def work(kind: str, name: str) -> None:
    """Serve one variant: a number comes in, that many requests are made, their mean time goes out."""
    app = PEERS[name][0](starlette_app() if kind == "Starlette" else raw_app)
    for line in sys.stdin:
        number = int(line)
        started = time.process_time()
        for _ in range(number):
            await app(scope(), receive, send)
        print((time.process_time() - started) / number * 1e6, flush=True)
        for call in forget:
            call()


def measure(kind: str, rounds: int, requests: int) -> dict[str, float]:
    names = [name for name, (_, module, on_raw) in PEERS.items() if installed(module) and (on_raw or kind != "raw")]
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--worker", kind, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in names
    }
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 2):
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(f"{requests}\n")
            worker.stdin.flush()
            took = float(worker.stdout.readline())
            if turn >= 2:  # the first ones warm up
                times[name].append(took)
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(*options.worker))
        return
    for kind in ("Starlette", "raw"):
        medians = measure(kind, options.rounds, options.requests)
        least = medians["minimum by hand"] - medians["bare"]
        print(f"\n{kind}, {options.rounds} rounds of {options.requests} requests\n")
        print("| | µs | added | × bare | × added by hand |\n|---|---|---|---|---|")
        for name, median in medians.items():
            added = median - medians["bare"]
            print(f"| {name} | {median:.2f} | {added:.2f} | {median / medians['bare']:.2f} | {added / least:.1f} |")

        view = medians["asgi-analytics, a page and its view"] - medians["asgi-analytics, a page"]
        at_most(f"{kind} in process, µs that a page view adds to a page", view, 3)
        everything_on = medians["asgi-analytics, everything on"]
        if kind == "Starlette":
            at_most("Starlette in process with everything on, × bare", everything_on / medians["bare"], 1.3)
            at_most("Starlette in process with everything on, µs added", everything_on - medians["bare"], 3)
        else:
            at_most("raw ASGI in process, × what the minimum by hand adds",
                    (everything_on - medians["bare"]) / least, 4.5)  # fmt: skip


if __name__ == "__main__":
    main()
