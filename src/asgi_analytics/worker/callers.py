"""Callers: what is stored of who sent a request, found out in the worker: a visitor, a device and a place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgi_analytics.encoding.caller import CallerLine
from asgi_analytics.encoding.page_view_record import PageViewRecord
from asgi_analytics.errors import TransientError
from asgi_analytics.log import failure, log_problem
from asgi_analytics.sinks.base import KnowsVisitors
from asgi_analytics.worker.devices import Devices
from asgi_analytics.worker.places import Places
from asgi_analytics.worker.visitors import OwnKeys, Visitors

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asgi_analytics.encoding.caller import Caller

CALLERS_AT_ONCE = 50
"""So many callers are described before others get a turn: half a millisecond."""

WITH_CALLER = (PageViewRecord, CallerLine)

OWN_KEYS = OwnKeys()
"""For sinks that share no keys."""


class Callers:
    """Describes the callers of a batch, before its lines are written.

    Visitors are those of all processes if the sink knows them (`KnowsVisitors`); else each process has keys of its own,
    and counts by itself.
    """

    def __init__(self, sink: object, geoip_database: str | None) -> None:
        self._shared = sink if isinstance(sink, KnowsVisitors) else None
        self._visitors = Visitors()
        self._devices = Devices()
        self._places = Places(geoip_database)
        self._problem = object()  # this worker's own in the log

    async def describe(self, batch: Sequence[Any]) -> None:
        """Describe the callers of a batch; raises `TransientError` if the sink cannot be asked just now.

        If it could not be asked at all, its events are stored without visitors.
        """
        callers = _callers_of(batch)
        for start in range(0, len(callers), CALLERS_AT_ONCE):
            part = callers[start : start + CALLERS_AT_ONCE]
            self._describe(part, await self._names(part))
            await asyncio.sleep(0)  # whoever waits for this loop, or for the interpreter, gets a turn

    def describe_here(self, batch: Sequence[Any]) -> None:
        """Describe the callers of a batch without asking any sink."""
        if callers := _callers_of(batch):
            self._describe(callers, self._own_names(callers))

    async def _names(self, callers: Sequence[Caller]) -> Sequence[str | None]:
        if self._shared is None:
            return self._own_names(callers)
        try:
            return await self._shared_names(callers, self._shared)
        except TransientError:
            raise
        except Exception as error:
            log_problem((self._problem, "visitors"), "visitors are not counted: %s", failure(error))
            return [None] * len(callers)

    def _own_names(self, callers: Sequence[Caller]) -> Sequence[str | None]:
        for day in self._visitors.missing_days(callers):
            self._visitors.learn(day, OWN_KEYS.key(day))
        return self._visitors.decide(callers)[0]

    async def _shared_names(self, callers: Sequence[Caller], sink: KnowsVisitors) -> Sequence[str | None]:
        visitors = self._visitors
        for day in visitors.missing_days(callers):
            if (key := await sink.visitor_key(day)) is not None:
                visitors.learn(day, key)
        found: Collection[str] = ()
        if unsure := visitors.unsure(callers):
            found = await sink.seen_visitors(unsure)
        names, noted = visitors.decide(callers, found)
        if noted:
            await sink.note_visitors(noted)
        return names

    def _describe(self, callers: Sequence[Caller], names: Sequence[str | None]) -> None:
        for caller, visitor in zip(callers, names, strict=True):
            found = {
                "visitor": visitor,
                "device": self._devices.device(caller.agent),
                "geo": self._places.place(caller.address, caller.country),
            }
            caller.describe({name: value for name, value in found.items() if value is not None})


def _callers_of(batch: Sequence[Any]) -> list[Caller]:
    """Return the callers that are not described yet, each once."""
    items = (item for item in batch if isinstance(item, WITH_CALLER))
    callers = {id(item.caller): item.caller for item in items if item.caller.described is None}
    return list(callers.values())
