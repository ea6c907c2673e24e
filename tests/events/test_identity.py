"""Event ids: UUIDv7, rising within a process, and no two alike."""

from __future__ import annotations

import dis
import os
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from asgi_analytics import events
from asgi_analytics.events import identity, minting
from asgi_analytics.testing import capture_events

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
TASK = events.TaskStarted(task_id=ID, user_id=ID)


def millisecond(event_id: UUID) -> int:
    return event_id.int >> 80


def test_an_id_is_a_uuid_of_version_7_and_tells_the_time() -> None:
    before = time.time_ns() // 1_000_000
    event_id = UUID(int=identity.mint().int)
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
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Give the time in milliseconds, to be set; ids start anew before and after."""
    now = [1_800_000_000_000]
    names = {**identity.mint_names(), "time_ns": lambda: now[0] * 1_000_000}
    monkeypatch.setattr(identity, "mint_names", lambda: names)
    minting.seed()
    yield now
    minting.seed()


def test_ids_do_not_go_back_when_the_clock_does(clock: list[int]) -> None:
    mint = identity._write_mint()
    first = mint()
    clock[0] -= 3_600_000
    second = mint()
    clock[0] += 3_600_001
    third = mint()
    assert first < second < third
    assert [millisecond(i) - clock[0] for i in (first, second, third)] == [-1, -1, 0]


def test_ids_rise_within_a_millisecond(clock: list[int]) -> None:
    mint = identity._write_mint()
    ids = [mint() for _ in range(10_000)]
    assert all(earlier < later for earlier, later in pairwise(ids))
    assert {millisecond(i) for i in ids} == {clock[0]}


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads come in between any two steps."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_no_other_thread_comes_in_while_a_millisecond_begins() -> None:
    """A thread gives way at calls and at loops: one that did so there could set back what another has set."""
    source = Path(minting.__file__).parent / "minting.py"
    module = compile(source.read_text(), source, "exec")
    [advance] = [code for code in module.co_consts if getattr(code, "co_name", "") == "advance"]
    steps = [step.opname for step in dis.get_instructions(advance)]
    assert steps
    assert not [step for step in steps if "CALL" in step or "JUMP_BACKWARD" in step]


def test_ids_rise_in_each_thread_and_no_two_are_alike_across_threads() -> None:
    minted: list[list[UUID]] = [[] for _ in range(8)]

    def mint(mine: list[UUID]) -> None:
        for _ in range(5_000):
            mine.append(identity.mint())

    threads = [threading.Thread(target=mint, args=(mine,)) for mine in minted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine in minted:
        assert all(earlier < later for earlier, later in pairwise(mine))
    assert len({i.int for mine in minted for i in mine}) == 40_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # other tests may have left threads
def test_a_forked_child_mints_ids_of_its_own(clock: list[int]) -> None:
    mint_one = identity._write_mint()

    def mint() -> set[int]:
        return {mint_one().int for _ in range(1_000)}  # in one millisecond here and there

    mint_one()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(i.to_bytes(16, "big") for i in mint()))
        os._exit(0)
    own = mint()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    childs = {int.from_bytes(raw[at : at + 16], "big") for at in range(0, len(raw), 16)}
    assert len(own) == len(childs) == 1_000
    assert not own & childs
