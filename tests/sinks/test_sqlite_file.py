"""SqliteSink and its file: not there, locked, replaced, full, read-only, corrupt, read for long, or written by many."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.sinks.sqlite import SqliteSink
from tests.faults.small_disk import SmallDisk
from tests.kit.sqlite import SqliteDatabase, file, sink, stored
from tests.sinks.contract import ids, line

__all__ = ["file", "sink"]


async def test_without_its_tables_it_names_the_command_and_makes_no_file(tmp_path: Path) -> None:
    sink = SqliteSink(f"sqlite:///{tmp_path}/none.db")
    for call in (sink.ready(), sink.write([line()]), sink.upkeep()):
        with pytest.raises(OperatorError, match="analytics-migrate all"):
            await call
    assert list(tmp_path.iterdir()) == []
    with contextlib.closing(sqlite3.connect(tmp_path / "none.db")) as other:
        other.execute("CREATE TABLE other (id)")
    for call in (sink.ready(), sink.write([line()])):
        with pytest.raises(OperatorError, match="analytics-migrate all"):
            await call
    await sink.aclose()


async def test_a_file_that_is_locked_is_waited_for(file: SqliteDatabase, sink: SqliteSink) -> None:
    other = file.open()
    other.execute("BEGIN IMMEDIATE")
    with sink._keeper.connection() as connection:
        connection.execute("PRAGMA busy_timeout = 20")
    with pytest.raises(TransientError, match="locked by another process"):
        await sink.write([line()])
    batch = [line()]
    writing = asyncio.create_task(sink.write(batch))
    await asyncio.sleep(0.05)
    assert not writing.done()
    other.execute("COMMIT")
    assert (await writing).duplicates == 0
    assert stored(file) == ids(batch)
    other.close()


async def test_a_file_that_is_replaced_is_opened_again(file: SqliteDatabase, sink: SqliteSink) -> None:
    await sink.write([line()])
    for path in file.path.parent.glob("analytics.db*"):
        path.unlink()
    with pytest.raises(OperatorError, match="analytics-migrate all"):
        await sink.write([line()])
    await file.migrate()
    batch = [line()]
    await sink.write(batch)
    assert stored(file) == ids(batch)


async def test_a_corrupt_file_and_one_of_something_else_are_for_the_operator(
    file: SqliteDatabase, tmp_path: Path
) -> None:
    (tmp_path / "text.db").write_text("no database " * 1000)
    sink = SqliteSink(f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(OperatorError, match="not an SQLite database"):
        await sink.write([line()])
    first = SqliteSink(file.url)
    await first.write([line(str(number)) for number in range(500)])
    await first.aclose()
    file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(file.path.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    file.path.write_bytes(content)
    with pytest.raises(OperatorError, match=r"corrupt|not an SQLite database"):
        await SqliteSink(file.url).write([line()])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_read_only_file_is_for_the_operator(file: SqliteDatabase) -> None:
    file.path.chmod(0o444)
    with pytest.raises(OperatorError, match="read-only"):
        await SqliteSink(file.url).write([line()])


async def test_a_read_only_connection_is_explained(file: SqliteDatabase, sink: SqliteSink) -> None:
    with sink._keeper.connection() as connection:
        connection.execute("PRAGMA query_only = ON")
    with pytest.raises(OperatorError, match="read-only"):
        await sink.write([line()])


async def write_all(sink: SqliteSink, batch: list[bytes]) -> None:
    """Write until the room in the log's last pages is used up, too; the last batch is ``batch``."""
    for _ in range(20):
        await sink.write([line("x" * 1000) for _ in range(20)])
    await sink.write(batch)


async def test_a_full_disk_is_waited_for_and_costs_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system: the disk cannot be filled")
    disk = SmallDisk(tmp_path / "disk", 24, (0, 0))
    try:
        file = SqliteDatabase(disk.folder / "analytics.db")
        await file.migrate()
        sink = SqliteSink(file.url)
        known = [line(str(number)) for number in range(100)]
        await sink.write(known)
        disk.fill()
        batch = [line("x" * 1000) for _ in range(500)]
        with pytest.raises(TransientError, match=r"disk .* is full|could not be"):
            await write_all(sink, batch)
        before = len(stored(file))
        disk.make_room()
        assert (await sink.write(batch)).duplicates == 0
        assert len(stored(file)) == before + len(batch)
        assert file.execute("PRAGMA integrity_check") == [("ok",)]
        await sink.aclose()
    finally:
        disk.unmount()


async def test_a_reader_that_stays_open_does_not_make_the_log_grow_for_ever(file: SqliteDatabase) -> None:
    sink = SqliteSink(file.url)
    reader = file.open()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM analytics_events").fetchall()
    for _ in range(6):
        await sink.write([line("x" * 1000) for _ in range(200)])
    await sink.upkeep()  # cannot cut the log now, and fails for nobody
    log = file.path.with_name("analytics.db-wal")
    assert log.stat().st_size > 1_000_000
    reader.execute("COMMIT")
    await sink.upkeep()
    assert log.stat().st_size == 0
    reader.close()
    await sink.aclose()


async def test_one_process_at_a_time_does_the_upkeep(file: SqliteDatabase) -> None:
    one, other = SqliteSink(file.url), SqliteSink(file.url)
    await one.write([line()])
    steps = one._upkeep.steps()
    assert next(steps) == "taken"
    assert list(other._upkeep.steps()) == []
    list(steps)
    assert next(other._upkeep.steps()) == "taken"
    file.execute("UPDATE analytics_upkeep SET renewed_at = '2026-01-01T00:00:00.000000Z'")  # it was killed
    assert next(one._upkeep.steps()) == "taken"
    await one.aclose()
    await other.aclose()


WRITER = """
import sys, time
from uuid import UUID
from asgi_analytics import AnalyticsClient, Event, events
client = AnalyticsClient.from_url(sys.argv[1], service=sys.argv[2], flush_interval=0.02)
print("up", flush=True)
number = 0
while number < int(sys.argv[3]):
    for _ in range(20):
        client.track(events.ProjectCreated(project_id=UUID(int=number), user_id=number, name=sys.argv[2]))
        number += 1
    if client.flush(30):
        print(number, flush=True)
sys.exit(0 if client.close(60) else 1)
"""


def test_four_processes_write_and_one_is_killed(file: SqliteDatabase) -> None:
    def start(name: str, number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, file.url, name, str(number)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    writers = [start(name, 1000) for name in "abc"]
    victim = start("d", 1_000_000)
    acknowledged = 0
    assert victim.stdout is not None
    assert victim.stdout.readline() == "up\n"
    while acknowledged < 100:
        acknowledged = int(victim.stdout.readline())
    victim.send_signal(signal.SIGKILL)
    rest, _ = victim.communicate()
    acknowledged = int(([str(acknowledged), *rest.split()])[-1])
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    found = dict(file.execute("SELECT service, count(*) FROM analytics_events GROUP BY service"))
    assert [found[name] for name in "abc"] == [1000, 1000, 1000]
    assert found["d"] >= acknowledged >= 100
    assert file.execute("PRAGMA integrity_check") == [("ok",)]
