"""The spool in a client: what goes to disk when, what comes back, and what is said of it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, AnalyticsWorker, MemorySink, events
from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.sinks import spool
from asgi_analytics.sinks.base import KnowsVisitors, Receipt, Rejected
from asgi_analytics.sinks.spool import DAMAGED, spooling
from asgi_analytics.sinks.spool_folder import SpoolFolder
from tests.faults.balance import assert_balanced
from tests.kit.fakes import BrokenSink, FakeSink, hang, until
from tests.kit.queues import make
from tests.kit.scripts import arrived, run_script

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)
AWAY = TransientError("the sink is away")

Spooled = Callable[..., AnalyticsClient]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LAST_BACKOFF", 0.05)
    monkeypatch.setattr(spool, "LOOK_SECONDS", 0.005)


@pytest.fixture
def spooled(tmp_path: Path) -> Iterator[Spooled]:
    """Give ``spooled(sink)``: a client that writes to the sink, with a spool in ``tmp_path / "spool"``."""
    made: list[AnalyticsClient] = []

    def make_client(sink: Any, **settings: Any) -> AnalyticsClient:
        usual: dict[str, Any] = {
            "queue_size": 200,
            "batch_size": 10,
            "flush_interval": 0.05,
            "spool": tmp_path / "spool",
        }
        client = AnalyticsClient.from_url("memory://", service="shop", **(usual | settings))
        client._delivery.host.sink = sink  # type: ignore[union-attr]
        made.append(client)
        return client

    yield make_client
    for client in made:
        client.close(1)


def track(client: AnalyticsClient, number: int) -> None:
    """Track so many events at the pace of the worker."""
    for _ in range(number):
        until(lambda: len(client._queue.items) < client.settings.queue_size - 1)
        assert client.track(TASK)


def folders(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool").iterdir())


@pytest.mark.parametrize("error", [AWAY, OperatorError("no such table"), ZeroDivisionError()])
@pytest.mark.parametrize("mode", ["overflow", "always"])
def test_an_outage_longer_than_the_queue_costs_nothing_and_keeps_the_order(
    spooled: Spooled, tmp_path: Path, mode: str, error: Exception
) -> None:
    sink = BrokenSink(error)
    client = spooled(sink, spool_mode=mode, spool_interval=0.01)
    tracked = 0
    wrong: list[Any] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            before, stats, after = tracked, client.stats(), tracked
            if not before <= stats.accepted <= after + 1 or stats.spooled < 0:
                wrong.append((before, stats, after))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(2_000):
        track(client, 1)
        tracked += 1
    until(lambda: client.stats().spooled > 1_800)
    assert client.stats().last_error is not None
    waited = client.stats().oldest_seconds
    assert waited > 0
    until(lambda: client.stats().oldest_seconds > waited)
    assert not client.flush(0.01)
    sink.error = None
    assert client.flush(20)
    over.set()
    looking.join()
    stats = client.stats()
    assert_balanced(stats)
    assert (stats.stored, stats.spooled, stats.dropped.total(), stats.last_error) == (2_000, 0, 0, None)
    assert list(sink.events) == sorted(sink.events)
    assert len(sink.events) == 2_000
    assert not wrong
    assert client.close()
    assert not folders(tmp_path)


def test_nothing_goes_to_disk_while_the_sink_stores_or_the_queue_is_not_half_full(
    spooled: Spooled, tmp_path: Path
) -> None:
    sink = BrokenSink(None)
    client = spooled(sink)
    track(client, 1_000)
    assert client.flush(10)
    sink.error = AWAY
    track(client, 60)
    until(lambda: len(sink.writes) and client.stats().retries > 2)
    assert client.stats().spooled == 0
    assert not (tmp_path / "spool").exists()
    sink.error = None
    assert client.flush(10)


@pytest.mark.parametrize("mode", ["overflow", "always"])
def test_a_close_while_the_sink_is_away_leaves_all_to_the_next_process(
    spooled: Spooled, tmp_path: Path, mode: str
) -> None:
    client = spooled(BrokenSink(AWAY), spool_mode=mode, close_timeout=10.0)
    track(client, 50)
    begun = time.monotonic()
    assert client.close()
    assert time.monotonic() - begun < 5
    stats = client.stats()
    assert_balanced(stats)
    assert (stats.spooled, stats.abandoned) == (50, 0)
    [left] = folders(tmp_path)
    sink = FakeSink()
    client = spooled(sink, spool_mode=mode)
    assert client.track(TASK)
    until(lambda: client.stats().recovered == 50 and client.stats().stored == 1)
    assert len(sink.events) == 51
    assert_balanced(client.stats())
    until(lambda: left not in folders(tmp_path))


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_a_close_during_a_write_that_hangs_keeps_what_would_be_abandoned(
    spooled: Spooled, tmp_path: Path, seconds: float
) -> None:
    sink = FakeSink(hang)
    client = spooled(sink)
    track(client, 20)
    until(lambda: sink.writes)
    track(client, 5)
    assert client.close(seconds)
    assert_balanced(client.stats())
    assert (client.stats().spooled, client.stats().abandoned) == (25, 0)
    until(lambda: client._delivery.host.stopped())  # type: ignore[union-attr]
    sink = FakeSink()
    client = spooled(sink)
    assert client.track(TASK)
    until(lambda: client.stats().recovered == 25)


def test_a_sink_too_slow_for_what_comes_in_costs_nothing(spooled: Spooled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PATIENCE_SECONDS", 0.02)
    sink = FakeSink(hang)
    client = spooled(sink)
    track(client, 1_000)
    assert client.flush(20)
    assert (client.stats().stored, client.stats().dropped.total()) == (1_000, 0)


def test_a_full_spool_leaves_events_in_the_queue_which_drops_and_a_close_abandons(
    spooled: Spooled, tmp_path: Path
) -> None:
    client = spooled(BrokenSink(AWAY), spool_bytes=20_000)
    accepted = 0
    deadline = time.monotonic() + 10
    while not client.stats().dropped["queue_full"]:
        accepted += client.track(TASK)
        time.sleep(0.0001)
        assert time.monotonic() < deadline
    kept = client.stats().spooled
    assert 0 < kept < accepted
    assert client.stats().accepted == accepted
    assert not client.close(0.2)
    stats = client.stats()
    assert_balanced(stats)
    assert stats.spooled + stats.abandoned == accepted
    assert stats.abandoned > 0
    assert sum(path.stat().st_size for path in (tmp_path / "spool").glob("*/*.spool")) <= 20_000


def test_a_spool_that_cannot_be_written_changes_nothing(
    spooled: Spooled, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("")
    sink = BrokenSink(None)
    client = spooled(sink, spool_mode="always", spool_interval=0.01)
    track(client, 500)
    assert client.flush(10)
    assert (client.stats().stored, client.stats().spooled) == (500, 0)
    sink.error = AWAY
    track(client, 20)
    assert not client.close(0.1)
    assert client.stats().abandoned == 20
    assert "nothing can be written to the spool" in caplog.text


def test_always_has_all_on_disk_after_an_interval_and_sends_it_by_the_batch(spooled: Spooled, tmp_path: Path) -> None:
    sink = FakeSink()
    client = spooled(sink, spool_mode="always", spool_interval=0.01, batch_size=100, flush_interval=3600)
    track(client, 60)
    until(lambda: client.stats().spooled == 60)
    [segment] = (tmp_path / "spool").glob("*/*.spool")
    assert len(segment.read_bytes().splitlines()) == 60
    assert not sink.writes
    track(client, 40)
    until(lambda: client.stats().stored == 100)
    assert [len(batch) for batch in sink.writes] == [100]
    assert segment.read_bytes() == b""
    track(client, 1)
    assert client.flush(10)
    assert len(sink.events) == 101


def test_poison_is_rejected_and_damage_is_counted(spooled: Spooled, tmp_path: Path) -> None:
    sink = BrokenSink(AWAY)
    client = spooled(sink)
    track(client, 300)
    until(lambda: client.stats().spooled >= 100)
    number = client.stats().spooled
    client._delivery.host._spool._folder._groups[-1].lines = None  # type: ignore[union-attr]
    [segment] = (tmp_path / "spool").glob("*/*.spool")
    with segment.open("r+b") as file:  # in place: the drain may read it at any moment
        file.seek(-5, os.SEEK_END)
        [byte] = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    sink.steps = [Receipt(rejected=[Rejected(index=0, reason="check_violation")])]
    sink.error = None
    assert client.flush(10)
    stats = client.stats()
    assert_balanced(stats)
    assert number > 100
    assert stats.rejected["check_violation"] == 1
    assert stats.rejected[DAMAGED] in (0, 1)  # the group may have been in memory for an attempt
    assert stats.accepted == 300


def test_damage_of_what_others_left_is_counted_apart(spooled: Spooled, tmp_path: Path) -> None:
    client = spooled(BrokenSink(AWAY))
    track(client, 50)
    assert client.close()
    [segment] = (tmp_path / "spool").glob("*/*.spool")
    segment.write_bytes(segment.read_bytes()[:-3])
    client = spooled(FakeSink())
    assert client.track(TASK)
    until(lambda: client.stats().recovered == 49)
    assert client.stats().damaged == 1
    assert client.flush(10)
    assert_balanced(client.stats())
    assert client.stats().accepted == 1


def test_metrics_go_through_the_spool_as_all_else(spooled: Spooled) -> None:
    sink = BrokenSink(AWAY)
    client = spooled(sink)
    client.metrics.counter("orders", 3, shop="north")
    client.metrics.counter("orders", 4, shop="north")
    assert client.close()
    assert client.stats().spooled == 1
    memory = MemorySink()
    client = spooled(memory)
    assert client.track(TASK)
    until(lambda: client.stats().recovered == 1 and client.stats().stored == 1)
    [row] = [event for event in memory.events if event.event_type != "task_started"]
    assert (row.data["sum"], row.data["count"]) == (7, 2)


def test_forks_have_folders_of_their_own(tmp_path: Path) -> None:
    code = """
        import asgi_analytics.errors as errors
        path, root = sys.argv[1:]
        client = AnalyticsClient.from_url(f"file://{path}", service="shop", spool=root, queue_size=100)
        works = FileSink.write
        async def refuse(self, batch):
            raise errors.TransientError("away")
        FileSink.write = refuse
        for number in range(300):
            while not client.track(said(f"parent {number:03}")):
                time.sleep(0.001)
        while client.stats().spooled < 100:
            time.sleep(0.001)
        pid = os.fork()
        assert pid or (client.stats().accepted, client.stats().spooled) == (0, 0)
        if pid == 0:
            for number in range(50):
                client.track(said(f"child {number:03}"))
            assert client.close(0)
            os._exit(len(os.listdir(root)) != 2)
        assert os.waitpid(pid, 0)[1] == 0
        FileSink.write = works
        assert client.flush(20)
        stats = client.stats()
        assert (stats.accepted, stats.stored) == (300, 300), stats
        client.close()
        client = AnalyticsClient.from_url(f"file://{path}", service="shop", spool=root, batch_size=1)
        client.track(said("next"))
        while client.stats().recovered + 300 < 350 and client.stats().recovered + stats.recovered < 50:
            time.sleep(0.001)
        client.close()
        print(len(os.listdir(root)))
    """
    assert run_script(code, tmp_path / "events", tmp_path / "spool").strip().endswith("0")
    expected = [f"child {number:03}" for number in range(50)] + ["next"]
    assert arrived(tmp_path / "events") == expected + [f"parent {number:03}" for number in range(300)]


class Knowing(MemorySink):
    """A sink that knows visitors, and does not answer when it is asked."""

    error: Exception | None = None

    async def _answer(self) -> None:
        if self.error is not None:
            raise self.error

    async def visitor_key(self, day: date) -> bytes | None:
        await self._answer()
        return b"key"

    async def seen_visitors(self, visitors: Any) -> Any:
        await self._answer()
        return list(visitors)

    async def note_visitors(self, visitors: Any) -> None:
        await self._answer()


async def test_visitors_that_cannot_be_asked_for_do_not_keep_events_from_the_disk(tmp_path: Path) -> None:
    _, ledger = make(size=10)
    folder = SpoolFolder(tmp_path, max_bytes=1 << 20, sync=False, keep=False, target="")
    sink = Knowing()
    outlet = spooling(sink, folder, ledger, always=False, batch_size=1, flush_interval=1)
    assert isinstance(outlet, KnowsVisitors)
    unknowing = spooling(MemorySink(), folder, ledger, always=False, batch_size=1, flush_interval=1)
    assert not isinstance(unknowing, KnowsVisitors)
    now = {"a visitor": datetime.now(UTC)}
    assert await outlet.visitor_key(date.today()) == b"key"
    assert await outlet.seen_visitors(now) == ["a visitor"]
    sink.error = AWAY
    with pytest.raises(TransientError):
        await outlet.seen_visitors(now)
    ledger._queue.close()
    assert await outlet.seen_visitors(now) == ()
    await outlet.note_visitors(now)
    with pytest.raises(Exception, match="away") as raised:
        await outlet.visitor_key(date.today())
    assert not isinstance(raised.value, TransientError)


def test_settings_are_checked(tmp_path: Path) -> None:
    for name, value in (
        ("spool", 3),
        ("spool", ""),
        ("spool_bytes", 0),
        ("spool_mode", "sometimes"),
        ("spool_interval", 0),
        ("spool_sync", 1),
    ):
        with pytest.raises(ConfigError, match=f"^{name} is"):
            AnalyticsClient(service="shop", **{name: value})  # type: ignore[arg-type]
    client = AnalyticsClient(service="shop", spool=tmp_path)
    with pytest.raises(ConfigError, match="from_url"):
        AnalyticsWorker(client, MemorySink())
    client = AnalyticsClient.from_environ(
        {
            "ANALYTICS_URL": "memory://",
            "ANALYTICS_SERVICE": "shop",
            "ANALYTICS_SPOOL": str(tmp_path),
            "ANALYTICS_SPOOL_BYTES": "5MiB",
            "ANALYTICS_SPOOL_MODE": "always",
            "ANALYTICS_SPOOL_INTERVAL": "0.5",
            "ANALYTICS_SPOOL_SYNC": "true",
        }
    )
    settings = client.settings
    assert (settings.spool, settings.spool_bytes, settings.spool_mode) == (str(tmp_path), 5 << 20, "always")
    assert (settings.spool_interval, settings.spool_sync) == (0.5, True)


async def test_an_application_on_a_loop_may_close_a_client_with_a_spool(spooled: Spooled) -> None:
    client = spooled(BrokenSink(AWAY))
    client.track(TASK)
    assert await asyncio.wait_for(client.aclose(), 5)
    assert client.stats().spooled == 1


async def test_the_end_of_the_lifespan_takes_to_disk_what_a_signal_would_kill(spooled: Spooled) -> None:
    client = spooled(BrokenSink(AWAY), close_timeout=0.05)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(30):
            client.track(TASK)

    await AnalyticsMiddleware(application, client=client)({"type": "lifespan"}, hang, hang)
    stats = client.stats()
    assert_balanced(stats)
    assert (stats.spooled, stats.queued, stats.in_flight) == (30, 0, 0)
