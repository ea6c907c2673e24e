"""The spool in a client: what goes to disk when, what comes back, and what is said of it."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, MemorySink
from asgi_analytics.errors import ConfigError, OperatorError, TransientError
from asgi_analytics.sinks import spool
from asgi_analytics.sinks.base import KnowsVisitors, Receipt, Rejected
from asgi_analytics.sinks.spool import DAMAGED, spooling
from asgi_analytics.sinks.spool_folder import SpoolFolder
from tests.faults.balance import assert_balanced
from tests.kit.fakes import BrokenSink, FakeSink, hang, until
from tests.kit.queues import make
from tests.sinks.spooled import AWAY, TASK, Spooled, folders, impatient, spooled, track

__all__ = ["impatient", "spooled"]


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
