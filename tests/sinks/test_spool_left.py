"""The spool at the end of a client, and what the next one finds of it; parents and children of a fork."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics import AnalyticsMiddleware, MemorySink
from tests.faults.balance import assert_balanced
from tests.kit.fakes import BrokenSink, FakeSink, hang, until
from tests.kit.scripts import arrived, run_script
from tests.sinks.spooled import AWAY, TASK, Spooled, folders, impatient, spooled, track

__all__ = ["impatient", "spooled"]


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
