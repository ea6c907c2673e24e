"""Whether a batch could be stored now, asked of the database once a second at most."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from asgi_analytics.context import suppress
from asgi_analytics.sinks.base import HasReadiness

if TYPE_CHECKING:
    from asgi_analytics.sinks.base import Sink

TIMEOUT = 2.0
"""Seconds for the database to answer."""

FRESH_SECONDS = 1.0
"""How long an answer is given again."""


class Readiness:
    """Asks a sink's ``ready()``, once for all who ask meanwhile; a sink that has none is always ready."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink if isinstance(sink, HasReadiness) else None
        self._asked: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    async def ask(self) -> None:
        """Return when the sink is ready; raises what is in the way."""
        if self._sink is None:
            return
        asked = self._asked
        is_fresh = time.monotonic() - self._asked_at <= FRESH_SECONDS
        if asked is None or asked.get_loop() is not asyncio.get_running_loop() or (asked.done() and not is_fresh):
            self._asked_at = time.monotonic()
            asked = self._asked = asyncio.create_task(self._look(self._sink), name="asgi-analytics ready")
        await asyncio.wait([asked])
        if (error := asked.exception()) is not None:
            raise error

    async def _look(self, sink: HasReadiness) -> None:
        with suppress():
            async with asyncio.timeout(TIMEOUT):
                await sink.ready()
