"""Event ids: UUIDv7, rising within a process, and no two alike."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import events
from asgi_analytics.encoding import ids as event_ids
from asgi_analytics.testing import capture_events
from tests.kit.scripts import run_script

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


def mint(clock: list[int]) -> UUID:
    return event_ids.mint(clock[0] * 1_000_000)


def millisecond(event_id: UUID) -> int:
    return event_id.int >> 80


def test_an_id_is_a_uuid_of_version_7_and_tells_the_time() -> None:
    before = time.time_ns() // 1_000_000
    event_id = UUID(int=event_ids.mint(time.time_ns()).int)
    assert (event_id.version, event_id.variant) == (7, UUID(int=ID.int).variant)
    assert before <= millisecond(event_id) <= time.time_ns() // 1_000_000


def test_ids_rise_within_a_process_whichever_way_events_take() -> None:
    class Anything(events.Event):
        what: Any = None

    with capture_events(strict=True) as captured:
        for _ in range(500):
            captured.client.track(TASK)
            captured.client.track(Anything(what=[1]))
    ids = [event.event_id for event in captured.events]
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert [e.timestamp for e in captured.events] == sorted(e.timestamp for e in captured.events)


@pytest.fixture
def clock() -> Iterator[list[int]]:
    """Give the time in milliseconds, to be set; ids start anew before and after."""
    now = [1_800_000_000_000]
    event_ids._seed()
    yield now
    event_ids._seed()


def test_ids_do_not_go_back_when_the_clock_does(clock: list[int]) -> None:
    first = mint(clock)
    clock[0] -= 3_600_000
    second = mint(clock)
    clock[0] += 3_600_001
    third = mint(clock)
    assert first < second < third
    assert [millisecond(i) - clock[0] for i in (first, second, third)] == [-1, -1, 0]


def test_ids_rise_within_a_millisecond(clock: list[int]) -> None:
    ids = [mint(clock) for _ in range(10_000)]
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert {millisecond(i) for i in ids} == {clock[0]}


@pytest.mark.usefixtures("restless")
def test_ids_rise_in_each_thread_and_no_two_are_alike_across_threads() -> None:
    minted: list[list[UUID]] = [[] for _ in range(8)]

    def mint_many(mine: list[UUID]) -> None:
        for _ in range(5_000):
            mine.append(event_ids.mint(time.time_ns()))

    threads = [threading.Thread(target=mint_many, args=(mine,)) for mine in minted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in minted:
        assert all(earlier < later for earlier, later in pairwise(mine))
    assert len({i.int for mine in minted for i in mine}) == 40_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_mints_ids_of_its_own() -> None:
    code = """
        from asgi_analytics.encoding import ids
        now = time.time_ns()
        ids.mint(now)
        child = os.fork()
        minted = [ids.mint(now).hex for _ in range(1_000)]  # in one millisecond here and there
        assert child == 0 or os.waitpid(child, 0) == (child, 0)
        print(*minted, flush=True)
    """
    minted = run_script(code).split()
    assert len(minted) == len(set(minted)) == 2_000
