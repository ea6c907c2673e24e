"""The endpoints of the ingestion service."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from asgi_analytics._version import __version__
from asgi_analytics.errors import TransientError
from asgi_analytics.log import failure, log_problem, solved
from asgi_analytics.sinks.base import Receipt, Rejected
from asgi_analytics.sinks.upkeep import Upkeep
from asgi_analytics.web.access import KEY, Figures, Seen
from asgi_analytics.web.ingestion import openapi
from asgi_analytics.web.ingestion.commit import GroupCommit
from asgi_analytics.web.ingestion.elements import NotAnArray, TooManyElements, split
from asgi_analytics.web.ingestion.readiness import Readiness
from asgi_analytics.web.problem import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from asgi_analytics.sinks.base import Sink
    from asgi_analytics.web.ingestion.body import Limits, Room
    from asgi_analytics.web.ingestion.validation import Validator
    from asgi_analytics.web.tokens import Tokens

WRITERS = 2
"""Connections that write at once: a second one stores half as much again, a fourth little more."""


class IngestionService:
    """The endpoints, and what they share."""

    def __init__(
        self,
        sink: Sink,
        *,
        tokens: Tokens,
        limits: Limits,
        max_events: int,
        room: Room,
        validator: Validator,
        figures: Figures,
    ) -> None:
        self.tokens = tokens
        self.limits = limits
        self.max_events = max_events
        self.room = room
        self.validator = validator
        self._commit = GroupCommit(sink, writers=WRITERS, figures=figures)
        self._readiness = Readiness(sink)
        self._upkeep = Upkeep(sink)

    def start(self) -> None:
        """Start what goes on between requests, on the running loop, unless it goes on there."""
        self._upkeep.start()

    async def health(self, request: Request) -> Response:
        """Answer that the process runs."""
        _seen(request, "/health")
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Answer whether a batch could be stored now."""
        _seen(request, "/ready")
        if not await self.is_ready():
            raise Problem(503, "the database cannot take events; the log of the service says why")
        return JSONResponse({"status": "ok"})

    async def is_ready(self) -> bool:
        """Tell whether a batch could be stored now; the log says why not."""
        try:
            await self._readiness.ask()
        except Exception as error:
            log_problem((id(self), "ready"), "not ready: %s", failure(error))
            return False
        solved((id(self), "ready"))
        return True

    async def openapi(self, request: Request) -> Response:
        """Answer with the description of the service."""
        _seen(request, "/openapi.json")
        document = openapi.describe(
            version=__version__,
            server=request.scope.get("root_path", "") or "/",
            max_body_bytes=self.limits.max_bytes,
            max_events=self.max_events,
            body_timeout=self.limits.timeout,
            demands_token=bool(self.tokens),
        )
        return JSONResponse(document)

    async def batch(self, request: Request) -> Response:
        """Store a batch, and answer after the commit."""
        seen = _seen(request, "/events/batch")
        authorization = [value for name, value in request.headers.raw if name.lower() == b"authorization"]
        self.tokens.demand(authorization[0] if len(authorization) == 1 else None)
        is_gzip = self.limits.check(request.headers)
        with self.room.hold() as held:
            try:
                body = await self.limits.read(request, held, is_gzip=is_gzip)
            except ClientDisconnect:
                return Response(status_code=499)  # to nobody but the log
            seen.bytes = len(body)
            lines = self._split(body)
            del body
            seen.events = len(lines)
            good, places, rejected = self.validator.check(lines)
            receipt = await self._store(good) if good else Receipt()
        rejected += [Rejected(places[one.index], one.reason, one.field) for one in receipt.rejected]
        rejected.sort(key=lambda one: one.index)
        received = len(lines) - len(rejected)
        seen.duplicates = receipt.duplicates
        seen.stored = received - receipt.duplicates
        seen.rejected = Counter(one.reason for one in rejected)
        answer = {
            "received": received,
            "duplicates": receipt.duplicates,
            "rejected": [{"index": one.index, "reason": one.reason, "field": one.field} for one in rejected],
        }
        return JSONResponse(answer, 422 if rejected and not received else 200)

    def _split(self, body: bytes) -> list[bytes | None]:
        try:
            return split(body, self.max_events)
        except NotAnArray as error:
            raise Problem(400, f"the body is no JSON array: {error}") from None
        except TooManyElements:
            raise Problem(413, f"more than {self.max_events} events: send smaller batches") from None

    async def _store(self, lines: list[bytes]) -> Receipt:
        self.start()
        try:
            receipt = await self._commit.store(lines)
        except Exception as error:
            away = isinstance(error, TransientError)
            said = failure(error)
            level = logging.WARNING if away else logging.ERROR
            log_problem((id(self), said), "batches are refused: %s", said, level=level)
            raise Problem(
                500,
                "the database write failed and nothing of the batch is stored: send it again",
                {"Retry-After": "1" if away else "10"},
            ) from None
        return receipt

    async def aclose(self) -> None:
        """Finish what was taken, and end the connections."""
        self._upkeep.stop()
        await self._commit.aclose()


def _seen(request: Request, endpoint: str) -> Seen:
    seen: Seen = request.scope[KEY]
    seen.endpoint = endpoint
    return seen
