"""The probes of a service: ``GET /health`` tells whether it runs, ``GET /ready`` whether it can do its work."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from asgi_analytics.context import suppress
from asgi_analytics.log import failure, log_problem, solved
from asgi_analytics.web.access import request_log
from asgi_analytics.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

TIMEOUT = 2.0
"""Seconds for the database to answer."""

FRESH_SECONDS = 1.0
"""How long an answer is given again."""


class Probes:
    """Ask ``check``, at most once a second, whether the service can do its work.

    ``check`` returns, or raises what is in the way; None stands for a service that is always ready. ``not_ready`` is
    what callers are told; the log says why.
    """

    def __init__(self, check: Callable[[], Awaitable[object]] | None, *, not_ready: str) -> None:
        self._check = check
        self._not_ready = not_ready
        self._asked: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._problem = object()  # these probes' own in the log

    async def health(self, request: Request) -> Response:
        """Answer that the process runs."""
        request_log(request, "/health")
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Answer whether the service can do its work now."""
        request_log(request, "/ready")
        if not await self.is_ready():
            raise Problem(503, self._not_ready)
        return JSONResponse({"status": "ok"})

    async def is_ready(self) -> bool:
        """Tell whether the service can do its work now; the log says why not."""
        try:
            await self._ask()
        except Exception as error:
            log_problem((self._problem, "ready"), "not ready: %s", failure(error))
            return False
        solved((self._problem, "ready"))
        return True

    async def _ask(self) -> None:
        if self._check is None:
            return
        asked = self._asked
        is_fresh = time.monotonic() - self._asked_at <= FRESH_SECONDS
        if asked is None or asked.get_loop() is not asyncio.get_running_loop() or (asked.done() and not is_fresh):
            self._asked_at = time.monotonic()
            asked = self._asked = asyncio.create_task(self._look(self._check), name="asgi-analytics ready")
        await asyncio.wait([asked])
        if (error := asked.exception()) is not None:
            raise error

    async def _look(self, check: Callable[[], Awaitable[object]]) -> None:
        with suppress():
            async with asyncio.timeout(TIMEOUT):
                await check()
