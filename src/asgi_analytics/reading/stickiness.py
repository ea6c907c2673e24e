"""How often users come: on how many days of a range."""

from __future__ import annotations

import msgspec

from asgi_analytics.reading.presence import of_presence, presence_parameters
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import Moment
from asgi_analytics.reading.source import Source

DAYS = of_presence("stickiness", "days")


class ActiveDays(msgspec.Struct, frozen=True):
    """The users who were active on so many days."""

    days_active: int
    users: int
    percentage: float
    """Of the users who were active at all, from 0 to 1."""


class Stickiness(msgspec.Struct, frozen=True):
    """Users by their days, fewest days first."""

    buckets: list[ActiveDays]
    """A number of days that no user has has no row."""


@question("/stickiness")
async def query_stickiness(
    source: Source,
    *,
    event_type: Text | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> Stickiness:
    """Count users by the number of local days of the range on which they have an event, any or one of a type.

    For the events of one type, time zones other than UTC need the raw rows.
    """
    edges = source.range(start, end, timezone).buckets("day").edges
    async with source.snapshot() as snapshot:
        parameters = await presence_parameters(snapshot, edges[0], edges, [event_type], service)
        return Stickiness(await snapshot.rows(ActiveDays, DAYS, *parameters, edges, snapshot.limit()))
