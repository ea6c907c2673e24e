"""Time as the exporter has it, so that minutes of an outage take none."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from asgi_analytics.exports import exporter
from asgi_analytics.exports.exporter import Exporter


class Clock:
    """The time of all exporters from now on, in seconds: it goes on by their pauses alone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._planned: list[tuple[float, Callable[[], Any]]] = []
        clock = self

        async def pause(self: Exporter, seconds: float) -> None:
            clock.pass_by(seconds)

        monkeypatch.setattr(Exporter, "_pause", pause)
        monkeypatch.setattr(exporter, "time", SimpleNamespace(monotonic=lambda: self.now))

    def at(self, seconds: float, call: Callable[[], Any]) -> None:
        """Have something done by the first pause that reaches a time."""
        self._planned.append((seconds, call))

    def pass_by(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += max(0.0, seconds)
        due = [planned for planned in self._planned if planned[0] <= self.now]
        self._planned = [planned for planned in self._planned if planned[0] > self.now]
        for _, call in due:
            call()
