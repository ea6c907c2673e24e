"""Whether users come back: cohorts of users who began in one period, and how many of them were there in later ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from asgi_analytics.reading.presence import EVER, of_presence, presence_parameters
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import Buckets, Moment
from asgi_analytics.reading.source import Source, refuse_too_many

COHORTS = of_presence("retention", "cohorts")

Periods = Annotated[int, msgspec.Meta(ge=1, le=100)]


class ReturningUsers(msgspec.Struct, frozen=True):
    """The users of a cohort who came back in one period."""

    period: int
    """Days, weeks or months after the one in which the cohort began."""
    count: int
    percentage: float | None
    """Of the cohort, from 0 to 1; null for a period that has not begun."""
    complete: bool
    """Whether the period is over."""


class Cohort(msgspec.Struct, frozen=True):
    """The users who began in one local day, week or month."""

    date: datetime
    size: int
    retention: list[ReturningUsers]
    """A row for each period, also for those that have not begun."""


class OverallRetention(msgspec.Struct, frozen=True):
    """One period of all cohorts for which it is over."""

    period: int
    percentage: float
    """Of the users of these cohorts, from 0 to 1."""


class Retention(msgspec.Struct, frozen=True):
    """Cohorts, oldest first, and all of them together."""

    cohorts: list[Cohort]
    overall_retention: list[OverallRetention]
    """A row for each period that is over for a cohort."""


@question("/retention")
async def query_retention(
    source: Source,
    target_event: Text | None = None,
    returning_event: Text | None = None,
    period: Literal["day", "week", "month"] = "day",
    total_periods: Periods = 8,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> Retention:
    """Count the users whose first target event ever lies in the range, by period, and those who come back in others.

    A cohort is of the users who began in one local day, week or month, of which the range may cut the first and the
    last. In each period from 0, that of the cohort itself, to ``total_periods`` - 1 those of them count who have a
    returning event in it, also after the end of the range. Period 0 is the whole day, week or month, so a returning
    event in it may be earlier than the target event. Where no event is named, any will do.

    Cohorts without users have no row. For the events of one type, time zones other than UTC need the raw rows of the
    days within which a period begins.
    """
    asked = source.range(start, end, timezone)
    buckets = _begun(asked.around(period, after=total_periods - 1).buckets(period), source.now())
    edges = buckets.edges
    async with source.snapshot() as snapshot:
        inner = [at for at in (asked.start, asked.end) if edges[0] < at < edges[-1]]
        events = (target_event, returning_event)
        parameters = await presence_parameters(snapshot, EVER, (*edges, *inner), events, service)
        own = (edges, asked.start, asked.end, *events, total_periods, snapshot.limit())
        rows = await snapshot.records(COHORTS, *parameters, *own)
    refuse_too_many(rows)
    counts = {(cohort, number): users for cohort, number, users in rows}
    cohorts = [
        Cohort(buckets.labels[n - 1], size, _periods(counts, n, size, total_periods, edges, source.now()))
        for (n, number), size in counts.items()
        if number is None
    ]
    return Retention(cohorts, list(_overall(cohorts, total_periods)))


def _begun(buckets: Buckets, now: datetime) -> Buckets:
    """Return the buckets that have begun, or the first of those that have not."""
    number = max(1, bisect_right(buckets.edges[:-1], now))
    return Buckets(buckets.edges[: number + 1], buckets.labels[:number])


def _periods(
    counts: Mapping[tuple[int, int | None], int],
    cohort: int,
    size: int,
    total: int,
    edges: tuple[datetime, ...],
    now: datetime,
) -> list[ReturningUsers]:
    begun = min(total, len(edges) - cohort)
    found = [(number, counts.get((cohort, number), 0)) for number in range(begun)]
    made = [ReturningUsers(number, users, users / size, edges[cohort + number] <= now) for number, users in found]
    return made + [ReturningUsers(number, 0, None, complete=False) for number in range(begun, total)]


def _overall(cohorts: list[Cohort], total: int) -> Iterable[OverallRetention]:
    for number in range(total):
        over = [one for one in cohorts if one.retention[number].complete]
        if over:
            users = sum(one.retention[number].count for one in over)
            yield OverallRetention(number, users / sum(one.size for one in over))
