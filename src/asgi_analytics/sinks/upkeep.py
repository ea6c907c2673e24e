"""The hourly upkeep of a sink, for the worker and for the ingestion service."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from asgi_analytics.context import suppress
from asgi_analytics.log import failure, log_problem
from asgi_analytics.sinks.base import HasUpkeep

if TYPE_CHECKING:
    from asgi_analytics.sinks.base import Sink

FIRST_SECONDS = 60.0
"""The first upkeep comes at a random time within so many seconds, so that processes started together do not collide."""

EVERY_SECONDS = 3600.0
"""Seconds between the end of one upkeep and the beginning of the next."""


class Upkeep:
    """Calls a sink's ``upkeep()`` soon after the start and then every hour; does nothing for a sink without one."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._problem = object()  # this upkeep's own in the log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start on the running loop, unless it is already running there."""
        loop = asyncio.get_running_loop()
        if isinstance(self._sink, HasUpkeep) and self._loop is not loop:
            self._loop = loop
            self._task = loop.create_task(self._run(self._sink), name="asgi-analytics upkeep")

    def stop(self) -> None:
        """Cancel what was started on the running loop."""
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
        self._loop = self._task = None

    async def _run(self, sink: HasUpkeep) -> None:
        await asyncio.sleep(random.uniform(0, FIRST_SECONDS))  # noqa: S311  # not a secret
        with suppress():
            while True:
                try:
                    await sink.upkeep()
                except Exception as error:
                    log_problem(
                        (self._problem, "upkeep"), "the hourly upkeep failed and is tried again: %s", failure(error)
                    )
                await asyncio.sleep(EVERY_SECONDS)
