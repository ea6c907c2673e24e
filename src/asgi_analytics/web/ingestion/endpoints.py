"""The endpoints of the ingestion service."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from asgi_analytics._version import __version__
from asgi_analytics.context import suppress
from asgi_analytics.errors import TransientError
from asgi_analytics.events.named import read_categories
from asgi_analytics.log import failure, log_problem
from asgi_analytics.sinks.base import CATEGORIES_HEADER, HasReadiness, NotesEventTypes, Receipt, Rejected
from asgi_analytics.sinks.upkeep import Upkeep
from asgi_analytics.web.access import request_log
from asgi_analytics.web.ingestion import openapi
from asgi_analytics.web.ingestion.commit import GroupCommit
from asgi_analytics.web.ingestion.elements import NotAnArray, TooManyElements, split
from asgi_analytics.web.ingestion.metrics import IngestionMetrics
from asgi_analytics.web.ingestion.registry import Registry
from asgi_analytics.web.ingestion.retention import Retention
from asgi_analytics.web.probes import Probes
from asgi_analytics.web.problem import Problem

if TYPE_CHECKING:
    from datetime import timedelta

    from starlette.requests import Request

    from asgi_analytics.sinks.base import Sink
    from asgi_analytics.web.ingestion.body import ByteBudget, Limits
    from asgi_analytics.web.ingestion.validation import Validator
    from asgi_analytics.web.tokens import Tokens

WRITERS = 2
"""Connections that write at once. A second one stores half as much again; a fourth adds little."""


class IngestionService:
    """The endpoints, and what they share."""

    def __init__(
        self,
        sink: Sink,
        *,
        tokens: Tokens,
        limits: Limits,
        max_events: int,
        budget: ByteBudget,
        validator: Validator,
        retention: timedelta | None,
    ) -> None:
        self.tokens = tokens
        self.limits = limits
        self.max_events = max_events
        self.budget = budget
        self.validator = validator
        self.probes = Probes(
            sink.ready if isinstance(sink, HasReadiness) else None,
            not_ready="the database cannot take events; the log of the service says why",
        )
        self._metrics = IngestionMetrics()
        self._commit = GroupCommit(sink, writers=WRITERS, metrics=self._metrics)
        self._upkeep = Upkeep(sink)
        self._registry = Registry(sink)
        self._retention = Retention(sink)
        self._keeps_alike = retention is not None
        if retention is not None:
            validator.keep({None: retention})
        self._sink = sink
        self._problem = object()  # this service's own in the log

    def start(self) -> None:
        """Start what runs between requests, on the running loop, unless it already runs there."""
        self._upkeep.start()

    async def openapi(self, request: Request) -> Response:
        """Answer with the description of the service."""
        request_log(request, "/openapi.json")
        document = openapi.describe(
            version=__version__,
            server=request.scope.get("root_path", "") or "/",
            max_body_bytes=self.limits.max_bytes,
            max_events=self.max_events,
            body_timeout=self.limits.timeout,
            requires_token=bool(self.tokens),
        )
        return JSONResponse(document)

    async def batch(self, request: Request) -> Response:
        """Store a batch, and answer after the commit."""
        counts = request_log(request, "/events/batch").counts
        counts |= {"bytes": 0, "events": 0, "stored": 0, "duplicates": 0, "rejected": 0}
        self.tokens.require(request.headers)
        is_gzip = self.limits.check(request.headers)
        with self.budget.share() as share:
            try:
                body = await self.limits.read(request, share, is_gzip=is_gzip)
            except ClientDisconnect:
                return Response(status_code=499)  # only the log sees it
            counts["bytes"] = len(body)
            self._metrics.received(len(body))
            lines = self._split(body)
            del body
            counts["events"] = len(lines)
            await self._follow_registry()
            await self._follow_retention()
            good, places, rejected = self.validator.check(lines)
            if good:
                await self._note_types(request)
            receipt = await self._store(good) if good else Receipt()
        rejected += [Rejected(places[one.index], one.reason, one.field) for one in receipt.rejected]
        rejected.sort(key=lambda one: one.index)
        received = len(lines) - len(rejected)
        stored = received - receipt.duplicates
        counts |= {"stored": stored, "duplicates": receipt.duplicates, "rejected": len(rejected)}
        self._metrics.settled(stored, receipt.duplicates, rejected)
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
            raise Problem(400, f"the body is not a JSON array: {error}") from None
        except TooManyElements:
            raise Problem(413, f"more than {self.max_events} events: send smaller batches") from None

    async def _store(self, lines: list[bytes]) -> Receipt:
        self.start()
        try:
            receipt = await self._commit.store(lines)
        except Exception as error:
            raise self._failed(error) from None
        return receipt

    def _failed(self, error: Exception) -> Problem:
        is_transient = isinstance(error, TransientError)
        reason = failure(error)
        level = logging.WARNING if is_transient else logging.ERROR
        log_problem((self._problem, reason), "batches are refused: %s", reason, level=level)
        return Problem(
            500,
            "the database write failed and nothing of the batch is stored: send it again",
            {"Retry-After": "1" if is_transient else "10"},
        )

    async def _follow_registry(self) -> None:
        """Let unknown types be checked by the schemas of the registry, if they are to be checked at all."""
        if self.validator.strict_types:
            try:
                with suppress():
                    self.validator.use(await self._registry.current())
            except Exception as error:  # without the schemas good events would be refused for ever
                raise self._failed(error) from None

    async def _follow_retention(self) -> None:
        """Let events be as old as the database keeps them, unless the service was told how old."""
        if not self._keeps_alike:
            with suppress():
                self.validator.keep(await self._retention.current())

    async def _note_types(self, request: Request) -> None:
        """Note the categories that a sender says of its types, before the first row of one is stored."""
        said = request.headers.get(CATEGORIES_HEADER)
        if said and isinstance(self._sink, NotesEventTypes):
            try:
                with suppress():
                    await self._sink.note_event_types(read_categories(said))
            except Exception as error:
                raise self._failed(error) from None

    async def aclose(self) -> None:
        """Finish what was accepted, and close the connections."""
        self._upkeep.stop()
        await self._commit.aclose()
