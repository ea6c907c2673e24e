"""SqliteSink: the sink contract, poison, what is stored once, visitors, categories, threads and forks."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import pytest

from asgi_analytics import AnalyticsClient, Event, events
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import Category
from asgi_analytics.sinks import sink_from_url
from asgi_analytics.sinks.base import (
    HasReadiness,
    HasUpkeep,
    KnowsSchemas,
    KnowsVisitors,
    NotesEventTypes,
    TellsDuplicates,
)
from asgi_analytics.sinks.sqlite import SqliteSink
from tests.kit.scripts import run_script
from tests.kit.sqlite import SqliteDatabase, file, sink, stored
from tests.sinks.contract import SinkContract, StoredIds, ids, line
from tests.sinks.test_poison import POISON, SECRET, with_timestamp

__all__ = ["file", "sink"]


class TestSqliteSink(SinkContract):
    @pytest.fixture
    def sink(self, sink: SqliteSink) -> SqliteSink:
        return sink

    @pytest.fixture
    def stored_ids(self, file: SqliteDatabase) -> StoredIds:
        async def read() -> list[UUID]:
            return stored(file)

        return read


def test_it_can_do_what_the_sink_of_postgresql_can(sink: SqliteSink) -> None:
    for protocol in (HasUpkeep, HasReadiness, KnowsVisitors, TellsDuplicates, NotesEventTypes, KnowsSchemas):
        assert isinstance(sink, protocol)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sqlite://", "no path"),
        ("sqlite://host/a.db", "a host"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///a.db?mode=ro", "parameters"),
    ],
)
def test_a_url_that_names_no_file_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        sink_from_url(url)


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert SqliteSink("sqlite:///a%20b.db")._url.path == tmp_path / "a b.db"


async def test_every_kind_of_poison_is_told_as_postgresql_tells_it(file: SqliteDatabase, sink: SqliteSink) -> None:
    for kind, (make, reason, sqlstate) in POISON.items():
        good, bad = [line("a"), line("b")], make()
        receipt = await sink.write([good[0], bad, good[1]])
        [refused] = receipt.rejected
        assert (refused.index, receipt.duplicates) == (1, 0), kind
        assert refused.reason.startswith(reason), kind
        assert SECRET not in refused.reason
        assert set(ids(good)) <= set(stored(file))
        [letter] = file.execute("SELECT reason, sqlstate, payload FROM analytics_dead_letters")
        assert letter == (refused.reason, sqlstate, bad.decode("utf-8", "replace")), kind
        assert (await sink.write([good[0], bad])).duplicates == 1
        file.execute("DELETE FROM analytics_dead_letters")


@pytest.mark.parametrize("member", ["data", "context", "x"])
async def test_what_sqlite_could_not_read_is_not_stored(file: SqliteDatabase, sink: SqliteSink, member: str) -> None:
    """One row that is too deep would fail every view."""
    deep = line("deep").replace(b'"name":"deep"', b'"name":' + f'{{"{member}":'.encode() * 1200 + b"1" + b"}" * 1200)
    receipt = await sink.write([*(line() for _ in range(1500)), deep])
    assert [one.index for one in receipt.rejected] == [1500]
    assert file.execute("SELECT count(json_extract(data, '$.name')) FROM analytics_events") == [(1500,)]


async def test_a_rule_of_ones_own_rejects_by_its_name(file: SqliteDatabase, sink: SqliteSink) -> None:
    file.execute(
        "CREATE TRIGGER no_secrets BEFORE INSERT ON analytics_events WHEN json_extract(new.data, '$.name') = 'hunter2'"
        " BEGIN SELECT raise(ABORT, 'no secrets'); END"
    )
    receipt = await sink.write([line("a"), line(SECRET), line("b")])
    assert [one.index for one in receipt.rejected] == [1]
    assert len(stored(file)) == 2


async def test_the_places_of_duplicates_are_told(sink: SqliteSink) -> None:
    batch = [line(name) for name in "abcd"]
    assert (await sink.write(batch[:2])).duplicate_at == ()
    receipt = await sink.write([batch[3], batch[1], batch[2], batch[2], batch[0]])
    assert (receipt.duplicates, receipt.duplicate_at) == (3, [1, 3, 4])


async def test_metrics_and_traits_are_stored_once(file: SqliteDatabase) -> None:
    client = AnalyticsClient.from_url(file.url, service="shop", strict=True)
    for value in (3.5, 7.5):
        client.metrics.histogram("h", value, b="x", a=1)
    client.metrics.counter("c", 2)
    client.track(events.identify(5, role="admin", plan="pro", registered_at="2026-01-01"))
    client.track(events.identify(5, plan="free"))
    assert client.close(30)
    rows = {row["name"]: row for row in file.rows("metrics")}
    assert (rows["h"]["sum"], rows["h"]["value"], rows["h"]["tags"]) == (11.0, 5.5, '{"a":1,"b":"x"}')
    assert rows["c"]["bins"] is None
    [traits] = file.rows("analytics_user_traits")
    assert json.loads(traits["traits"]) == {"role": "admin", "plan": "free", "registered_at": "2026-01-01"}
    assert (traits["role"], traits["registered_at"]) == ("admin", datetime(2026, 1, 1, tzinfo=UTC))
    # An older one that comes late changes only what is not known yet.
    late = {
        "event_id": str(UUID(int=9)),
        "event_type": "user_identified",
        "timestamp": "2026-01-02T00:00:00Z",
        "service": "shop",
        "user_id": str(traits["user_id"]),
        "data": {"plan": "old", "team": "blue"},
    }
    sink = SqliteSink(file.url)
    await sink.write([json.dumps(late).encode()] * 2)
    await sink.aclose()
    [after] = file.rows("analytics_user_traits")
    assert json.loads(after["traits"])["plan"] == "free"
    assert json.loads(after["traits"])["team"] == "blue"


async def test_visitors_are_shared_and_forgotten(file: SqliteDatabase, sink: SqliteSink) -> None:
    today, moment = datetime.now(UTC).date(), datetime.now(UTC)
    other = SqliteSink(file.url)
    keys = await asyncio.gather(sink.visitor_key(today), other.visitor_key(today))
    assert keys[0] == keys[1] is not None
    assert await sink.visitor_key(today - timedelta(days=2)) is None
    for days in range(2, 5):
        file.execute("INSERT INTO analytics_visitor_keys VALUES (?, 'k')", (today - timedelta(days=days)).isoformat())
    await sink.note_visitors({"a": moment, "b": moment - timedelta(minutes=31), "old": moment - timedelta(hours=49)})
    await other.note_visitors({"a": moment - timedelta(hours=1)})
    assert await other.seen_visitors(dict.fromkeys(["a", "b", "c"], moment)) == {"a"}
    await sink.upkeep()
    assert file.execute("SELECT day FROM analytics_visitor_keys") == [(today.isoformat(),)]
    assert {row[0] for row in file.execute("SELECT visitor FROM analytics_midnight_visitors")} == {"a", "b"}
    await other.aclose()


async def test_categories_are_noted_before_the_first_row_and_only_lengthened(
    file: SqliteDatabase, sink: SqliteSink, caplog: pytest.LogCaptureFixture
) -> None:
    class RentPaid(Event):
        category: ClassVar[Category] = "transaction"

    def known(name: str) -> list[str]:
        return [row[0] for row in file.execute("SELECT category FROM analytics_event_types WHERE event_type = ?", name)]

    await sink.write([line()])
    assert known("rent_paid") == ["transaction"]
    assert RentPaid.category == "transaction"
    for category in ("system", "activity"):
        await sink.note_event_types({"rent_paid": category})
        assert known("rent_paid") == ["transaction"]
    for category in ("system", "activity", "nonsense"):
        await sink.note_event_types({"rent_seen": category, "x" * 256: category})
    assert known("rent_seen") == ["activity"]
    assert known("x" * 256) == []

    # A file that the new version's steps are still to come to takes events, and says what is missing, once.
    file.execute("DROP TABLE analytics_event_types")
    other = SqliteSink(file.url)
    for _ in range(2):
        await other.note_event_types({"rent_paid": "transaction"})
    assert (await other.write([line()])).duplicates == 0
    await other.aclose()
    assert [record.message for record in caplog.records if "analytics-migrate all" in record.message] == [
        "rows of these types are kept as long as interactions, because the database does not take their category: run "
        "analytics-migrate all; types: 1"
    ]


async def test_many_threads_write_at_once(file: SqliteDatabase) -> None:
    batches = [[line(f"{thread} {number}") for number in range(50)] for thread in range(16)]

    async def write(batch: list[bytes]) -> None:
        sink = SqliteSink(file.url)
        for start in range(0, 50, 10):
            await sink.write(batch[start : start + 10])
        await sink.aclose()

    threads = [threading.Thread(target=asyncio.run, args=(write(batch),)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert stored(file) == ids([one for batch in batches for one in batch])


def test_a_forked_child_writes_on_a_connection_of_its_own(file: SqliteDatabase) -> None:
    code = """
        client = AnalyticsClient.from_url(sys.argv[1], service="shop")
        client.track(said("parent"))
        assert client.flush(30)
        child = os.fork()
        if child == 0:
            client.track(said("child"))
            os._exit(0 if client.close(30) else 1)
        assert os.waitpid(child, 0) == (child, 0)
        client.track(said("parent"))
        assert client.close(30)
    """
    run_script(code, file.url)
    said = [json.loads(row[0])["what"] for row in file.execute("SELECT data FROM analytics_events ORDER BY id")]
    assert said == ["parent", "child", "parent"]


async def test_late_times_go_where_they_belong(file: SqliteDatabase, sink: SqliteSink) -> None:
    receipt = await sink.write([with_timestamp("2026-01-01T00:00:00+05:45"), line()])
    assert receipt.duplicate_at == []
    assert file.execute("SELECT min(timestamp) FROM analytics_events") == [("2025-12-31T18:15:00.000000Z",)]
    assert len(file.execute("SELECT hour FROM analytics_changes")) == 2
