"""How the users of one period differ from those of the period before: who is new, stays, comes again, or leaves."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from asgi_analytics.reading.presence import EVER, of_presence, presence_parameters
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import Moment
from asgi_analytics.reading.source import Source

BUCKETS = of_presence("lifecycle", "buckets")


class LifecycleBucket(msgspec.Struct, frozen=True):
    """The users of one local day, week or month; new, returning and resurrecting are all that were active in it."""

    date: datetime
    new: int
    """Never active before."""
    returning: int
    """Active in the one before, too."""
    resurrecting: int
    """Not active in the one before, but earlier."""
    dormant: int
    """Active in the one before, and not in this one."""


class Lifecycle(msgspec.Struct, frozen=True):
    """Every day, week or month of the range, oldest first."""

    data: list[LifecycleBucket]


@question("/lifecycle")
async def query_lifecycle(
    source: Source,
    *,
    interval: Literal["day", "week", "month"] = "day",
    event_type: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> Lifecycle:
    """Count the users of each local day, week or month who are new, return, come again after a pause, or stay away.

    Active are those with an event, any or one of a type. Of a week that the range cuts, only what is in the range
    counts; what lies in the first one before the range is earlier. The first is compared with the whole week before
    it. For the events of one type, time zones other than UTC need the raw rows of the days within which a day, week or
    month begins.
    """
    asked = source.range(start, end, timezone)
    buckets = asked.buckets(interval)
    before = asked.around(interval, before=1).buckets(interval).edges[:2]
    async with source.snapshot() as snapshot:
        parameters = await presence_parameters(snapshot, EVER, (*before, *buckets.edges), [event_type], service)
        own = (*before, buckets.edges, snapshot.limit())
        return Lifecycle(await snapshot.rows(LifecycleBucket, BUCKETS, *parameters, *own, buckets=buckets))
