"""The range of a question, its local days, weeks and months, and which of its parts aggregates can answer.

Everything about time zones is computed here and passed to the server as instants: it never sees the name of a zone.
"""

from __future__ import annotations

import functools
import itertools
import zoneinfo
from bisect import bisect_right
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import Literal, Self

import msgspec

from asgi_analytics.errors import InvalidQuery

Moment = date | datetime
Step = Literal["hour", "day", "week", "month"]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
HALF_HOUR = timedelta(minutes=30)
QUARTER = timedelta(minutes=15)

MICROSECOND = timedelta(microseconds=1)

DEFAULT_DAYS = 30
"""Whole days before today that a question covers unless it says otherwise."""
WEEK_DAYS = 7
"""The same of a question that reads much for each day."""
EARLIEST, LATEST = date(1970, 1, 1), date(2200, 1, 1)
MOST_BUCKETS = 50_000
"""More than five years of hours."""

MOMENT = "an aware datetime, or a date (a local day), from 1970 to 2199"
ZONE = "the IANA name of a time zone, for instance Europe/Berlin"


class Split(msgspec.Struct, frozen=True):
    """A range in three parts: aggregates answer the middle one, raw rows what lies before and after it."""

    start: datetime
    since: datetime
    """Where the middle begins."""
    until: datetime
    """Where the middle ends."""
    end: datetime

    @property
    def raw(self) -> list[tuple[datetime, datetime]]:
        """The parts that only raw rows can answer."""
        return [part for part in ((self.start, self.since), (self.until, self.end)) if part[0] < part[1]]

    @property
    def bounds(self) -> tuple[datetime, datetime, datetime, datetime]:
        """The four instants, as the SQL takes them."""
        return self.start, self.since, self.until, self.end

    def around(self, days: Split) -> tuple[datetime, ...]:
        """The four instants, and in the middle those of whole days, whose aggregate has fewer rows.

        Where ``days`` has no middle, the two are the end of this one.
        """
        has_days = days.since < days.until
        since, until = (days.since, days.until) if has_days else (self.until, self.until)
        return self.start, self.since, since, until, self.until, self.end


class Buckets(msgspec.Struct, frozen=True):
    """The steps of a range. Bucket n, counted from 1, is what ``width_bucket(…, edges)`` says it is."""

    edges: tuple[datetime, ...]
    """Where each bucket begins, and where the last one ends; the first and the last are those of the range."""
    labels: tuple[datetime, ...]
    """The local hour, or midnight of the day, the Monday or the first of the month, that each bucket belongs to."""

    def split(self, step: timedelta, *, known: bool = True, filled_until: datetime | None = None) -> Split:
        """Return which part an aggregate of this ``step`` in UTC can answer.

        None of it, if a bucket begins within a step, as local days do within days of UTC, or if the aggregate does not
        know the filter that was asked for (``known`` is False); nothing from ``filled_until`` on, if that is given.
        """
        start, end = self.edges[0], self.edges[-1]
        since = floor(start + step - MICROSECOND, step)
        until = floor(end if filled_until is None else min(end, filled_until), step)
        inner = self.edges[1:-1]
        if not known or since >= until or any(edge != floor(edge, step) for edge in inner):
            return Split(start, end, end, end)
        return Split(start, since, until, end)


class Range(msgspec.Struct, frozen=True):
    """What a question covers: from ``start`` up to but without ``end``, both in UTC, seen from a time zone."""

    start: datetime
    end: datetime
    zone: tzinfo

    @classmethod
    def read(
        cls, start: Moment | None, end: Moment | None, zone: tzinfo, now: datetime, days: int = DEFAULT_DAYS
    ) -> Self:
        """Return the range of two parameters; by default it is the last 30 whole ``days`` and today.

        A date is its local midnight; as an end it includes its day. Raises `InvalidQuery`.
        """
        last = None if end is None else _instant("end", end, zone, whole_day=True)
        if last is None:
            last = midnight(now.astimezone(zone).date() + DAY, zone)
        if start is None:
            final_day = (last - MICROSECOND).astimezone(zone).date()
            first = midnight(final_day - days * DAY, zone)
        else:
            first = _instant("start", start, zone, whole_day=False)
        if first >= last:
            raise InvalidQuery("start", "must be before the end" if end is not None else "must not be after today")
        return cls(first, last, zone)

    @classmethod
    def read_hours(cls, start: Moment | None, end: Moment | None, zone: tzinfo, now: datetime) -> Self:
        """Return the range of a question that by default covers the last 24 whole hours and the current one."""
        if start is not None or end is not None:
            return cls.read(start, end, zone, now)
        this_hour = _hour(now, zone)
        return cls(this_hour - 24 * HOUR, this_hour + HOUR, zone)

    @property
    def whole_days(self) -> int | None:
        """How many local days this is made of; None if it begins or ends within one."""
        first, after_last = (at.astimezone(self.zone).date() for at in (self.start, self.end))
        if (self.start, self.end) != (midnight(first, self.zone), midnight(after_last, self.zone)):
            return None
        return (after_last - first).days

    def previous(self) -> Range:
        """Return the range before: as many local days if this one is made of whole local days, else as long."""
        return Range(self._earlier(self.start), self.start, self.zone)

    def previous_buckets(self, buckets: Buckets) -> Buckets:
        """Return the range before in as many buckets as this one is in, each with the label of what it is compared to.

        So weeks of it need not begin on Monday: each is moved back by as much as the whole range.
        """
        # Never back in time: of an hour that the clocks show twice, the second part has nothing to be compared to.
        return Buckets(tuple(itertools.accumulate(map(self._earlier, buckets.edges), max)), buckets.labels)

    def _earlier(self, at: datetime) -> datetime:
        """Return the same time as many days earlier as this range has, or as much earlier as it is long."""
        if self.whole_days is None:
            return at - (self.end - self.start)
        clock = at.astimezone(self.zone)
        day = clock.date() - self.whole_days * DAY
        if at == midnight(clock.date(), self.zone):  # which need not be 0:00
            return midnight(day, self.zone)
        return datetime.combine(day, clock.time(), tzinfo=self.zone).astimezone(UTC)

    def around(self, step: Step, *, before: int = 0, after: int = 0) -> Range:
        """Return the whole local hours, days, weeks or months that this touches, and so many before and after them."""
        start, _ = _around(self.start, step, self.zone)
        for _ in range(before):
            start, _ = _around(start - MICROSECOND, step, self.zone)
        _, end = _around(self.end - MICROSECOND, step, self.zone)
        for _ in range(after):
            _, end = _around(end, step, self.zone)
        return Range(start, end, self.zone)

    def buckets(self, step: Step | None) -> Buckets:
        """Return the local hours, days, weeks or months; the range cuts the first and the last. None: one for all."""
        if step is None:
            return Buckets((self.start, self.end), (local(self.start, self.zone),))
        edges: list[datetime] = []
        labels: list[datetime] = []
        at = self.start
        while at < self.end:
            if len(edges) == MOST_BUCKETS:
                raise InvalidQuery("start", f"covers more than {MOST_BUCKETS:,} buckets: narrow the range")
            label, following = _around(at, step, self.zone)
            edges.append(at)
            labels.append(local(label, self.zone))
            at = following
        return Buckets((*edges, self.end), tuple(labels))


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Where the buckets of aggregates are counted from."""


def floor(at: datetime, step: timedelta) -> datetime:
    """Return when the bucket of an aggregate begins that an instant falls into."""
    return at - (at - EPOCH) % step


def local(at: datetime, zone: tzinfo) -> datetime:
    """Return an instant with the offset that its time zone had then.

    A fixed offset, since Python takes two instants in the hour that is there twice for the same if their zone is.
    """
    offset = at.astimezone(zone).utcoffset() or timedelta(0)
    return at.astimezone(timezone(offset) if offset else UTC)


def midnight(day: date, zone: tzinfo) -> datetime:
    """Return the first instant of a local day, in UTC."""
    # Of a midnight that the clocks skip, the earlier offset gives the instant at which they are set forward; of one
    # that they show twice, fold=0 is the first.
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC)


def _hour(at: datetime, zone: tzinfo) -> datetime:
    """Return when the local hour of an instant began."""
    offset = at.astimezone(zone).utcoffset() or timedelta(0)
    return at - (at - EPOCH + offset) % HOUR


def _around(at: datetime, step: Step, zone: tzinfo) -> tuple[datetime, datetime]:
    """Return when the bucket of an instant begins, and when the next one does."""
    if step == "hour":
        begins = _hour(at, zone)
        return begins, begins + HOUR
    day = at.astimezone(zone).date()
    if step == "week":
        day -= day.weekday() * DAY
        following = day + 7 * DAY
    elif step == "month":
        day = day.replace(day=1)
        following = (day + 31 * DAY).replace(day=1)
    else:
        following = day + DAY
    begins, ends = midnight(day, zone), midnight(following, zone)
    if ends <= at:  # the next local day does not exist, as on islands that moved over the date line
        ends = midnight(following + DAY, zone)
    return begins, ends


def number_of(at: datetime, buckets: Buckets) -> int:
    """Return the number of the bucket that an instant falls into, as ``width_bucket`` does."""
    return bisect_right(buckets.edges, at)


def _instant(field: str, moment: Moment, zone: tzinfo, *, whole_day: bool) -> datetime:
    if not isinstance(moment, date):  # a datetime is one too
        raise InvalidQuery(field, f"must be {MOMENT}")
    if isinstance(moment, datetime):
        if moment.utcoffset() is None:
            raise InvalidQuery(field, f"has no time zone: use {MOMENT}")
        if not EARLIEST.year < moment.year < LATEST.year:
            raise InvalidQuery(field, f"must be {MOMENT}")
        return moment.astimezone(UTC)
    if not EARLIEST <= moment < LATEST:
        raise InvalidQuery(field, f"must be {MOMENT}")
    return midnight(moment + DAY if whole_day else moment, zone)


def read_zone(name: str, field: str = "timezone") -> tzinfo:
    """Return a time zone by its IANA name. Raises `InvalidQuery` for any other text."""
    if not isinstance(name, str) or name not in _zone_names():
        raise InvalidQuery(field, f"must be {ZONE}")
    return UTC if name == "UTC" else zoneinfo.ZoneInfo(name)


@functools.cache
def _zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() | {"UTC"})
