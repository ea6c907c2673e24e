"""Other tools that replace methods of asyncpg: in any order, results, exceptions and all records are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, cast

import asyncpg
import asyncpg.connect_utils
import asyncpg.cursor
import pytest

from asgi_analytics.instrumentation.asyncpg import Instrumentation, instrument_asyncpg
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.queries.asked import queries

QUERIES: dict[str, int | None] = {
    "SELECT 1": 1,
    "SELECT * FROM t": 5,
    "UPDATE t SET name = 'x' WHERE id > 2": 3,
    "SELECT * FROM missing": None,
}


class Ours:
    """This package, switched on and off."""

    def __init__(self) -> None:
        self.handle: Instrumentation | None = None

    def toggle(self, captured: CapturedEvents) -> None:
        if self.handle is None:
            self.handle = instrument_asyncpg(captured.client)
        else:
            self.handle.uninstrument()
            self.handle = None


async def ask(connection: Any, method: str, sql: str) -> Any:
    try:
        return await getattr(connection, method)(sql)
    except asyncpg.UndefinedTableError as error:
        return type(error), str(error)


async def ask_all(connection: Any, ask_once: Callable[..., Any]) -> list[Any]:
    await connection.execute("TRUNCATE t; INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 5) n")
    return [
        await ask_once(connection, method, sql)
        for sql in QUERIES
        for method in ("fetch", "fetchrow", "fetchval", "execute")
    ]


def rows_of(captured: CapturedEvents) -> list[Any]:
    return [event.data["rows_affected"] for event in queries(captured) if "TRUNCATE" not in event.data["statement"]]


EXPECTED_ROWS = [1, 1, 1, 1, 5, 1, 1, 5, 3, 3, 3, 3, None, None, None, None]


@pytest.fixture
async def bare(dsn: str) -> Any:
    connection = await asyncpg.connect(dsn)
    answers = await ask_all(connection, ask)
    await connection.close()
    return answers


@pytest.fixture
def ours() -> Iterator[Ours]:
    ours = Ours()
    yield ours
    if ours.handle is not None:
        ours.handle.uninstrument()


# -- OpenTelemetry: wrapt's wrappers in the classes, which it takes away by itself


@pytest.mark.parametrize("steps", ["".join(steps) for size in range(1, 6) for steps in product("ao", repeat=size)])
async def test_opentelemetry_switched_on_and_off_in_any_order(dsn: str, ours: Ours, bare: Any, steps: str) -> None:
    """Each letter switches one of the two on, or off again: (a)sgi-analytics or (o)penTelemetry."""
    pytest.importorskip("opentelemetry.instrumentation.asyncpg")
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    theirs = cast("Any", AsyncPGInstrumentor)()
    before = dict(vars(asyncpg.connection.Connection))
    connection = await asyncpg.connect(dsn)
    with capture_events() as captured:
        for step in steps:
            if step == "a":
                ours.toggle(captured)
            elif theirs.is_instrumented_by_opentelemetry:
                theirs.uninstrument()
            else:
                theirs.instrument(tracer_provider=provider)
        try:
            assert await ask_all(connection, ask) == bare
            is_theirs_on = theirs.is_instrumented_by_opentelemetry
            assert rows_of(captured) == (EXPECTED_ROWS if ours.handle else [])
            assert len(exporter.get_finished_spans()) == (1 + len(bare) if is_theirs_on else 0)
            if ours.handle and is_theirs_on:  # OpenTelemetry is outermost, so its span is the one of our event
                spans = {f"{span.context.span_id:016x}" for span in exporter.get_finished_spans()}
                assert {event.context["span_id"] for event in queries(captured) if event.context} == spans
        finally:
            if theirs.is_instrumented_by_opentelemetry:
                theirs.uninstrument()
            if ours.handle is not None:
                ours.toggle(captured)
            await connection.close()
    assert dict(vars(asyncpg.connection.Connection)) == before


async def test_opentelemetry_sees_cursors_and_prepared_statements(dsn: str, ours: Ours) -> None:
    pytest.importorskip("opentelemetry.instrumentation.asyncpg")
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor

    theirs = cast("Any", AsyncPGInstrumentor)()
    connection = await asyncpg.connect(dsn)
    with capture_events() as captured:
        theirs.instrument()
        ours.toggle(captured)
        try:
            async with connection.transaction():
                rows = [row[0] async for row in connection.cursor("SELECT generate_series(1, 120)")]
                cursor = await connection.cursor("SELECT generate_series(1, 7)")
                rows += [row[0] for row in await cursor.fetch(5)]
                assert await cursor.forward(5) == 2
            prepared = await connection.prepare("SELECT $1::int")
            assert await prepared.fetchval(3) == 3
        finally:
            theirs.uninstrument()
            await connection.close()
        assert rows == [*range(1, 121), *range(1, 6)]
        assert [event.data["rows_affected"] for event in queries(captured)] == [120, 5, 1]


# -- Sentry: closures in the classes, for good


@pytest.fixture
def sentry() -> Iterator[Any]:
    """Give Sentry's set-up, and a list of the spans that it sends; asyncpg is put back after the test."""
    sentry_sdk = pytest.importorskip("sentry_sdk")
    from sentry_sdk.integrations.asyncpg import AsyncPGIntegration
    from sentry_sdk.transport import Transport

    owners = [asyncpg.connection.Connection, asyncpg.cursor.BaseCursor, asyncpg.connect_utils]
    names = ("execute", "_execute", "_executemany", "prepare", "_bind_exec", "_exec", "_connect_addr")
    before = [(owner, name, vars(owner)[name]) for owner in owners for name in names if name in vars(owner)]

    def put_back() -> None:
        for owner, name, value in before:
            setattr(owner, name, value)

    spans: list[Any] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            spans.extend((envelope.get_transaction_event() or {}).get("spans", []))

    sentry_sdk.init(
        dsn="http://key@127.0.0.1/1",
        transport=Kept,
        traces_sample_rate=1.0,
        default_integrations=False,
        auto_enabling_integrations=False,
        integrations=[AsyncPGIntegration()],
    )
    put_back()  # the test says when it is set up
    yield AsyncPGIntegration.setup_once, spans
    sentry_sdk.get_client().close(0)
    sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)  # else it patches Starlette
    put_back()


@pytest.mark.parametrize("steps", ["as", "sa", "asa", "saa", "asaa", "saaa", "asaaa", "aasaa"])
async def test_sentry_set_up_in_any_order(dsn: str, ours: Ours, bare: Any, sentry: Any, steps: str) -> None:
    """Each letter switches (a)sgi-analytics on, or off again, or sets (S)entry up."""
    import sentry_sdk

    set_up, spans = sentry
    with capture_events() as captured:
        for step in steps:
            ours.toggle(captured) if step == "a" else set_up()
        connection = await asyncpg.connect(dsn)
        with sentry_sdk.start_transaction(name="test"):
            assert await ask_all(connection, ask) == bare
        await connection.close()
        assert rows_of(captured) == (EXPECTED_ROWS if ours.handle else [])
    asked = [span for span in spans if span["description"] in QUERIES]
    assert len(asked) == len(bare)


# -- Elastic: wrapt's wrappers around the protocol


class ElasticTransport:
    """Keeps the spans, and sends nothing."""

    spans: list[Any]
    start_stop_order = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def start_thread(self, pid: int | None = None) -> None: ...

    def stop_thread(self) -> None: ...

    def close(self) -> None: ...

    def queue(self, kind: str, data: Any, flush: bool = False) -> None:
        if kind == "span":
            self.spans.append(data)


def statement_of(span: Any) -> str:
    return str(span["context"]["db"]["statement"])


@pytest.mark.parametrize("steps", ["ae", "ea", "aea", "eaa", "aee", "eae", "aeae", "eaea"])
async def test_elastic_switched_on_and_off_in_any_order(dsn: str, ours: Ours, bare: Any, steps: str) -> None:
    """Each letter switches one of the two on, or off again: (a)sgi-analytics or (e)lastic."""
    elasticapm = pytest.importorskip("elasticapm")
    from elasticapm.instrumentation.packages.asyncio.asyncpg import AsyncPGInstrumentation

    theirs = AsyncPGInstrumentation()
    client = elasticapm.Client(
        service_name="test",
        transport_class=f"{__name__}.ElasticTransport",
        central_config=False,
        cloud_provider="none",
        span_compression_enabled=False,
    )
    spans: list[Any] = []
    client._transport.spans = spans
    with capture_events() as captured:
        for step in steps:
            if step == "a":
                ours.toggle(captured)
            elif theirs.instrumented:
                theirs.uninstrument()
            else:
                theirs.instrument()
        connection = await asyncpg.connect(dsn)
        client.begin_transaction("test")
        try:
            assert await ask_all(connection, ask) == bare
        finally:
            client.end_transaction("test")
            client.close()
            if is_on := theirs.instrumented:
                theirs.uninstrument()
            await connection.close()
        assert rows_of(captured) == (EXPECTED_ROWS if ours.handle else [])
    # It does not see the three that fail while they are prepared.
    assert len([span for span in spans if statement_of(span) in QUERIES]) == (len(bare) - 3 if is_on else 0)
