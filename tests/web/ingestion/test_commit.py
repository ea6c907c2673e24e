"""Group commit: batches share writes, and each gets its own verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from asgi_analytics.context import suppressed
from asgi_analytics.errors import OperatorError, TransientError
from asgi_analytics.sinks.base import Receipt, Rejected
from asgi_analytics.web.ingestion.commit import GROUP_BYTES, GROUP_EVENTS, GroupCommit
from asgi_analytics.web.ingestion.metrics import IngestionMetrics


class Gate:
    """A sink whose writes wait until they are let through; b"bad" is poison, b"dup" a duplicate."""

    tells_duplicates = True

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.writes: list[list[bytes]] = []
        self.at_once = self.most_at_once = 0
        self.error: Exception | None = None

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        self.writes.append(list(batch))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert suppressed.get()
        await self.open.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        if b"fatal" in batch:
            raise OperatorError("somebody must act")
        rejected = [Rejected(i, "poison") for i, line in enumerate(batch) if line == b"bad"]
        duplicates = [i for i, line in enumerate(batch) if line == b"dup"]
        return Receipt(len(duplicates), rejected, duplicates)

    async def aclose(self) -> None:
        pass


class Simple(Gate):
    tells_duplicates = False


def commit(sink: Gate, writers: int = 2) -> GroupCommit:
    return GroupCommit(sink, writers=writers, metrics=IngestionMetrics())


async def start(committer: GroupCommit, *batches: list[bytes]) -> list[asyncio.Task[Receipt]]:
    """Hand in one batch after the other, each when the one before is on its way or waits."""
    tasks = []
    for batch in batches:
        tasks.append(asyncio.create_task(committer.store(batch)))
        for _ in range(3):
            await asyncio.sleep(0)
    return tasks


async def test_what_comes_together_goes_together() -> None:
    sink = Gate()
    sink.open.set()
    committer = commit(sink)
    await asyncio.gather(*(committer.store([b"%d" % i]) for i in range(5)))
    assert sink.writes == [[b"0", b"1", b"2", b"3", b"4"]]


async def test_what_comes_during_a_write_goes_together_in_the_next() -> None:
    sink = Gate()
    tasks = await start(commit(sink), [b"1"], [b"2"], [b"3"], [b"4", b"5"])
    assert sink.writes == [[b"1"], [b"2"]]
    sink.open.set()
    await asyncio.gather(*tasks)
    assert sink.writes[2:] == [[b"3", b"4", b"5"]]
    assert sink.most_at_once == 2


async def test_no_batch_waits_for_a_writer_that_has_just_ended() -> None:
    class AtOnce(Gate):
        async def write(self, batch: Sequence[bytes]) -> Receipt:
            return Receipt(0, (), [])

    committer = commit(AtOnce())

    async def send() -> None:
        for i in range(200):
            await committer.store([b"1"])
            for _ in range(i % 4):
                await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await asyncio.gather(*(send() for _ in range(5)))


async def test_each_batch_gets_its_own_part_of_the_receipt() -> None:
    sink = Gate()
    tasks = await start(commit(sink, 1), [b"0"], [b"dup", b"1"], [b"2", b"bad", b"dup", b"dup"], [b"3"], [b"bad"])
    sink.open.set()
    receipts = await asyncio.gather(*tasks)
    assert len(sink.writes) == 2
    assert [receipt.duplicates for receipt in receipts] == [0, 1, 2, 0, 0]
    assert [[one.index for one in receipt.rejected] for receipt in receipts] == [[], [], [1], [], [0]]


async def test_groups_end_at_their_bounds_but_a_batch_is_never_divided() -> None:
    sink = Gate()
    huge, large = [b"x"] * (GROUP_EVENTS * 3), [b"x" * GROUP_BYTES]
    tasks = await start(commit(sink, 1), [b"0"], [b"1"], huge, [b"2"], large, [b"3"])
    sink.open.set()
    await asyncio.gather(*tasks)
    assert [len(write) for write in sink.writes] == [1, 1, len(huge), 1, 1, 1]


async def test_a_sink_that_cannot_tell_gets_one_batch_at_a_time() -> None:
    sink = Simple()
    tasks = await start(commit(sink), [b"1"], [b"dup"], [b"3"])
    sink.open.set()
    receipts = await asyncio.gather(*tasks)
    assert sink.writes == [[b"1"], [b"dup"], [b"3"]]
    assert sink.most_at_once == 1
    assert [receipt.duplicates for receipt in receipts] == [0, 1, 0]


async def test_a_write_that_failed_fails_for_all_of_its_group() -> None:
    sink = Gate()
    sink.error = TransientError("away")
    tasks = await start(commit(sink, 1), [b"0"], [b"1"], [b"2"])
    sink.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [TransientError] * 3
    assert len(sink.writes) == 2


async def test_one_batch_that_cannot_be_written_fails_alone() -> None:
    sink = Gate()
    tasks = await start(commit(sink, 1), [b"0"], [b"1"], [b"fatal"], [b"2"])
    sink.open.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, Receipt) for result in results] == [True, True, False, True]


async def test_a_request_that_was_cancelled_costs_no_other() -> None:
    sink = Gate()
    tasks = await start(commit(sink, 1), [b"0"], [b"1"], [b"2"])
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.sleep(0)
    sink.open.set()
    assert (await tasks[2]).duplicates == 0
    assert sink.writes == [[b"0"], [b"2"]]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_closing_waits_for_what_was_taken() -> None:
    sink = Gate()
    committer = commit(sink)
    tasks = await start(committer, [b"1"])
    closing = asyncio.create_task(committer.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    sink.open.set()
    await closing
    assert tasks[0].done()


def test_a_loop_that_ended_in_a_write_leaves_nothing_behind() -> None:
    sink = Gate()
    committer = commit(sink, 1)

    async def leave() -> None:
        sink.open = asyncio.Event()
        await start(committer, [b"0"], [b"1"])

    async def store() -> Receipt:
        sink.open = asyncio.Event()
        sink.open.set()
        return await committer.store([b"2"])

    asyncio.run(leave())
    assert asyncio.run(store()).duplicates == 0
    assert sink.writes[-1] == [b"2"]
