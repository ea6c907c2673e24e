"""One log line a problem, not one an event."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from asgi_analytics import log as _log
from asgi_analytics.log import QUIET_SECONDS, is_due, log_problem, solved


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(_log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(_log, "_last", type(_log._last)())
    return now


def test_a_problem_is_logged_once_and_again_when_it_lasts(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        log_problem("away", "the sink is away: %s", "refused")
    clock[0] += QUIET_SECONDS
    log_problem("away", "the sink is away: %s", "reset", level=logging.ERROR)
    assert [(r.levelname, r.getMessage(), r.name) for r in caplog.records] == [
        ("WARNING", "the sink is away: refused", "asgi_analytics"),
        ("ERROR", "the sink is away: reset (repeated meanwhile: 2)", "asgi_analytics"),
    ]


@pytest.mark.usefixtures("clock")
def test_another_problem_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    log_problem("away", "away")
    log_problem("full", "full")
    assert caplog.messages == ["away", "full"]


@pytest.mark.usefixtures("clock")
def test_a_problem_that_was_solved_is_logged_when_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    log_problem("away", "away")
    solved("away")
    solved("never heard of")
    log_problem("away", "away again")
    assert caplog.messages == ["away", "away again"]


@pytest.mark.usefixtures("clock")
def test_problems_without_end_take_no_memory_without_end() -> None:
    for number in range(10_000):
        is_due(number)
    assert len(_log._last) <= 200
    assert not is_due(9_999)


def test_a_machine_that_has_just_booted_logs_its_first_problem(clock: list[float]) -> None:
    clock[0] = 0.5
    assert is_due("away")
