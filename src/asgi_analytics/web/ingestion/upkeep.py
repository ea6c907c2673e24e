"""The sink's hourly upkeep: the applications behind a service reach no database, so their workers cannot do it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from asgi_analytics.context import suppress
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from asgi_analytics.sinks.base import Sink

FIRST_SECONDS = 60.0
EVERY_SECONDS = 3600.0


class Upkeep:
    """Calls a sink's ``upkeep()``, where it has one, soon after the start and then every hour."""

    def __init__(self, sink: Sink) -> None:
        self._upkeep = getattr(sink, "upkeep", None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start on the running loop, unless it runs there."""
        loop = asyncio.get_running_loop()
        if self._upkeep is not None and self._loop is not loop:
            self._loop = loop
            self._task = loop.create_task(self._run(), name="asgi-analytics upkeep")

    async def stop(self) -> None:
        """End it."""
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._loop = self._task = None

    async def _run(self) -> None:
        assert self._upkeep is not None
        await asyncio.sleep(random.uniform(0, FIRST_SECONDS))  # noqa: S311  # not all processes at once
        with suppress():
            while True:
                try:
                    await self._upkeep()
                except Exception as error:
                    log_problem((id(self), "upkeep"), "the hourly upkeep failed and is tried again: %s", failure(error))
                await asyncio.sleep(EVERY_SECONDS)
