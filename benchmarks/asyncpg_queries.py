"""What capturing a query costs: the client's CPU of ``SELECT 1`` over asyncpg, bare and instrumented.

Each contestant is a process of its own with one connection; they take turns within each round, so that whatever else
the machine does meets all of them. After some rounds new processes go on. Three things make two processes of the same
contestant differ by more than what is to be measured, and are therefore set:

- Where the two ends run. Client and server on one core is what the scheduler chooses for processes that wait for each
  other, and the cheapest query; on two, each waits for the other's core to wake up, which is counted as the query's CPU
  and more than doubles it. Both ends are kept on the same core.
- glibc. asyncio receives into 256 KiB, which are mapped and unmapped anew each time, for as much as the rest of the
  query, as long as no more than that is free: in a small process. In a large one, where something larger was freed
  once, all that is left of the query is Python's work. Both are measured, each for all contestants.
- What else lies in memory: to have imported the package, and not to use it, costs a query 1 to 3 %, as any import does.
  All contestants import the same, but *bare, alone*, which has asyncpg and nothing else.

``ours`` keeps its events in the queue, as the caller's thread sees it; ``ours, worker`` writes them to the same server,
and is counted with its worker thread and without. The peers make their spans and throw them away; Sentry's belong to a
transaction, as they must.

Run: python benchmarks/asyncpg_queries.py [--casts 12] [--rounds 8] [--queries 300]
Needs: nothing for the first five; opentelemetry-instrumentation-asyncpg and opentelemetry-sdk, sentry-sdk for the peers
Goals: ours at most 1.10 times the bare query, in a request 1.15, as the caller's thread sees it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.goals import at_most

QUERY = "SELECT 1"
BOUNDS = {"ours": 1.10, "ours, in a request": 1.15}

Prepared = tuple[Callable[[], None], Callable[[], None]]
"""What to do before each turn and after it."""

Contestant = tuple[str, str]
"""In which kind of process, and who."""


def nothing() -> None:
    pass


def alone(url: str) -> Prepared:
    return nothing, nothing


def bare(url: str) -> Prepared:
    return nothing, nothing


def ours(url: str) -> Prepared:
    from asgi_analytics import AnalyticsClient, instrument_asyncpg

    client = AnalyticsClient(service="shop", environment="production", queue_size=100_000)
    instrument_asyncpg(client)

    def empty() -> None:
        ledger = client._ledger
        batch = ledger.take(100_000, 1 << 40)
        assert len(batch) > 100
        ledger.settle(batch, duplicates=0, rejected=[])

    return nothing, empty


def ours_in_a_request(url: str) -> Prepared:
    from asgi_analytics.context import RequestContext, current

    def begin() -> None:
        request = RequestContext()
        request.method, request.endpoint, request.request_id = "GET", "/tasks/{id}", "0" * 32
        current.set(request)

    return begin, ours(url)[1]


def ours_sampled(url: str) -> Prepared:
    from asgi_analytics import AnalyticsClient, instrument_asyncpg

    instrument_asyncpg(AnalyticsClient(service="shop"), sample_rate=0.0, slow_ms=100)
    return nothing, nothing


def ours_and_worker(url: str) -> Prepared:
    from asgi_analytics import AnalyticsClient, instrument_asyncpg

    client = AnalyticsClient.from_url(url, service="shop", environment="production", queue_size=100_000)
    instrument_asyncpg(client)
    return nothing, nothing


def opentelemetry(url: str) -> Prepared:
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    processor = BatchSpanProcessor(Nowhere(), max_queue_size=100_000, schedule_delay_millis=3_600_000)
    provider.add_span_processor(processor)
    AsyncPGInstrumentor().instrument(tracer_provider=provider)
    return nothing, lambda: processor.force_flush() and None


def sentry(url: str) -> Prepared:
    import sentry_sdk
    from sentry_sdk.integrations.asyncpg import AsyncPGIntegration
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            pass

    sentry_sdk.init(
        dsn="http://key@127.0.0.1/1", transport=Nowhere, traces_sample_rate=1.0, integrations=[AsyncPGIntegration()]
    )
    open_: list[Any] = []

    def begin() -> None:
        open_.append(sentry_sdk.start_transaction(name="turn"))
        open_[-1].__enter__()

    return begin, lambda: open_.pop().__exit__(None, None, None)


CONTESTANTS: dict[str, tuple[Callable[[str], Prepared], str | None]] = {
    "bare, alone": (alone, None),
    "bare": (bare, None),
    "ours": (ours, None),
    "ours, in a request": (ours_in_a_request, None),
    "ours, sample_rate 0": (ours_sampled, None),
    "ours, worker": (ours_and_worker, None),
    "OpenTelemetry": (opentelemetry, "opentelemetry.instrumentation.asyncpg"),
    "Sentry": (sentry, "sentry_sdk"),
}


PROCESSES = {
    # Set to what it is at the start, it stays there.
    "small": {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)},
    # From the start as it is when something of this size was freed.
    "large": {"MALLOC_MMAP_THRESHOLD_": str(1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(2 * 1024 * 1024)},
}
"""What the environment says to glibc's allocator in each kind of process."""

RECEIVED = 256 * 1024
"""Bytes that asyncio reserves for what it receives."""


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ["arena", "chunks", "fast_chunks", "mapped", *"abcdef"]]


def use_up_what_is_free() -> None:
    """Leave no room in the heap for what asyncio receives into; it would hide that this is a small process."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    libc.mallinfo2.restype = _Mallinfo
    mapped = libc.mallinfo2().mapped
    while True:
        block = libc.malloc(RECEIVED)
        if libc.mallinfo2().mapped > mapped:
            libc.free(block)
            return


MODULES = [
    "asgi_analytics",
    "opentelemetry.instrumentation.asyncpg",
    "opentelemetry.sdk.trace.export",
    "sentry_sdk.integrations.asyncpg",
]
"""What the contestants need between them."""


def import_all() -> None:
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


async def take_turns(name: str, url: str, queries: int, core: int | None) -> None:
    """Run one contestant: a line in is a turn, a line out its figures."""
    if name != "bare, alone":
        import_all()
    begin, end = CONTESTANTS[name][0](url)
    connection = await asyncpg.connect(url)
    if core is not None:
        for process in (0, await connection.fetchval("SELECT pg_backend_pid()")):
            os.sched_setaffinity(process, {core})
    is_small = os.environ.get("MALLOC_MMAP_THRESHOLD_") == PROCESSES["small"]["MALLOC_MMAP_THRESHOLD_"]
    while sys.stdin.readline():
        if is_small:
            use_up_what_is_free()
        begin()
        for _ in range(queries // 10):  # caches, after the others' turns
            await connection.fetch(QUERY)
        process, thread = time.process_time_ns(), time.thread_time_ns()
        for _ in range(queries):
            await connection.fetch(QUERY)
        thread, process = time.thread_time_ns() - thread, time.process_time_ns() - process
        end()
        print(json.dumps([process / queries / 1000, thread / queries / 1000]), flush=True)
    await connection.close()


def measure(
    url: str, casts: int, rounds: int, queries: int, core: int | None
) -> dict[Contestant, list[tuple[float, float]]]:
    times: dict[Contestant, list[tuple[float, float]]] = {}
    for _ in range(casts):
        for contestant, figures in measure_cast(url, rounds, queries, core).items():
            times.setdefault(contestant, []).extend(figures)
    return times


def measure_cast(url: str, rounds: int, queries: int, core: int | None) -> dict[Contestant, list[tuple[float, float]]]:
    contestants = {
        (size, name): subprocess.Popen(
            [sys.executable, __file__, "--contestant", name, "--url", url, "--queries", str(queries)]
            + ([] if core is None else ["--core", str(core)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **allocator},
        )
        for size, allocator in PROCESSES.items()
        for name, (_, needs) in CONTESTANTS.items()
        if needs is None or _is_there(needs)
    }
    times: dict[Contestant, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            process = contestants[name]
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            figures = json.loads(process.stdout.readline())
            if number:
                times[name].append(figures)
    for process in contestants.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
    return times


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--casts", type=int, default=12, help="so many processes of each contestant, one after the other"
    )
    parser.add_argument("--rounds", type=int, default=8, help="of each cast")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--url", help="a PostgreSQL with the analytics tables; an embedded one without it")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        warnings.simplefilter("ignore")
        asyncio.run(take_turns(options.contestant, options.url, options.queries, options.core))
        return
    core: int | None = None
    if options.url:
        times = measure(options.url, options.casts, options.rounds, options.queries, None)
    else:
        from tests.kit.servers import Servers

        servers = Servers()
        try:
            server = servers.shared("postgresql")
            url = server.dsn(server.create(server.template()))
            if hasattr(os, "sched_setaffinity"):
                core = max(os.sched_getaffinity(0))
            times = measure(url, options.casts, options.rounds, options.queries, core)
        finally:
            servers.close()
    report(times, core)


def report(times: dict[Contestant, list[tuple[float, float]]], core: int | None) -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    print(f"CPython {python}, asyncpg {version('asyncpg')}, {QUERY}, {len(times['small', 'bare'])} rounds")
    where = "wherever the scheduler puts them: the ratios are less certain" if core is None else "on one core"
    print(f"client and server {where}")
    print()
    print("| a process | CPU of a query | process: median µs | fastest µs | × bare | thread: median µs | × bare |")
    print("|---|---|---|---|---|---|---|")
    measured: dict[str, tuple[float, float]] = {}
    for (size, name), rows in times.items():
        process, thread = (statistics.median(figures) for figures in zip(*rows, strict=True))
        fastest = min(row[0] for row in rows)
        # Of the same round: what slows the machine down slows both.
        ratios = [
            statistics.median(row[at] / bare[at] for row, bare in zip(rows, times[size, "bare"], strict=True))
            for at in (0, 1)
        ]
        print(f"| {size} | {name} | {process:.1f} | {fastest:.1f} | {ratios[0]:.3f} | {thread:.1f} | {ratios[1]:.3f} |")
        if name in BOUNDS:
            what = f"asyncpg, client's CPU of one query in a {size} process, {name}, × bare"
            measured[what] = ratios[1], BOUNDS[name]
    print()
    for what, (ratio, bound) in measured.items():
        at_most(what, ratio, bound)
    print("process: with the worker thread where there is one; thread: the caller's alone.")


if __name__ == "__main__":
    main()
