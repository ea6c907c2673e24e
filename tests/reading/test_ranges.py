"""Ranges are half-open, dates are local midnights, and local days are as long as the clocks make them."""

from __future__ import annotations

import itertools
import zoneinfo
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.ranges import (
    DAY,
    HOUR,
    QUARTER,
    WEEK_DAYS,
    Range,
    Step,
    floor,
    midnight,
    number_of,
    read_zone,
)

NOW = datetime(2026, 11, 29, 22, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})


def asked(start: Any = None, end: Any = None, zone: Any = UTC) -> Range:
    return Range.read(start, end, zone, NOW)


def test_the_default_is_the_last_30_whole_days_and_today() -> None:
    assert asked() == Range(datetime(2026, 10, 30, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC), UTC)
    # In Kolkata it is already the next day.
    found = asked(zone=ZoneInfo("Asia/Kolkata"))
    assert found.start == datetime(2026, 10, 30, 18, 30, tzinfo=UTC)
    assert found.end == datetime(2026, 11, 30, 18, 30, tzinfo=UTC)


def test_a_default_may_have_other_whole_days() -> None:
    found = Range.read(None, None, UTC, NOW, WEEK_DAYS)
    assert found == Range(datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 30, tzinfo=UTC), UTC)


@pytest.mark.parametrize(
    ("step", "before", "after", "start", "end"),
    [
        ("day", 0, 0, datetime(2026, 10, 21, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)),
        ("day", 1, 1, datetime(2026, 10, 20, 22, tzinfo=UTC), datetime(2026, 10, 26, 23, tzinfo=UTC)),
        ("week", 0, 0, datetime(2026, 10, 18, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC)),
        ("week", 0, 2, datetime(2026, 10, 18, 22, tzinfo=UTC), datetime(2026, 11, 8, 23, tzinfo=UTC)),
        ("month", 1, 0, datetime(2026, 8, 31, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC)),
    ],
)
def test_around_a_range_are_the_whole_buckets_that_it_touches(
    step: Step, before: int, after: int, start: datetime, end: datetime
) -> None:
    """On 25 October the clocks of Berlin go back."""
    found = asked(datetime(2026, 10, 22, 10, tzinfo=UTC), datetime(2026, 10, 25, 22, 59, tzinfo=UTC), BERLIN)
    assert found.around(step, before=before, after=after) == Range(start, end, BERLIN)


def test_a_date_is_its_local_midnight_and_an_end_date_includes_its_day() -> None:
    found = asked(date(2026, 11, 1), date(2026, 11, 2), BERLIN)
    assert found.start == datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert found.end == datetime(2026, 11, 2, 23, tzinfo=UTC)
    assert asked(date(2026, 11, 1), date(2026, 11, 1)).end == datetime(2026, 11, 2, tzinfo=UTC)


def test_an_instant_is_taken_as_it_is_in_whatever_zone_it_is_written() -> None:
    plus_two = datetime(2026, 11, 1, 12, 0, 0, 1, tzinfo=timezone(2 * HOUR))
    found = asked(plus_two, plus_two + timedelta(microseconds=1))
    assert (found.start, found.end) == (plus_two, plus_two + timedelta(microseconds=1))
    assert found.start.tzinfo is UTC


def test_an_end_alone_is_of_the_30_days_before_its_last_day() -> None:
    assert asked(end=date(2026, 3, 31)).start == datetime(2026, 3, 1, tzinfo=UTC)
    assert asked(end=datetime(2026, 4, 1, tzinfo=UTC)).start == datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (datetime(2026, 11, 1), None, "start"),
        (None, datetime(2026, 11, 1), "end"),
        ("2026-11-01", None, "start"),
        (None, 5, "end"),
        (date(2026, 11, 2), date(2026, 11, 1), "start"),
        (NOW, NOW, "start"),
        (date(2026, 11, 30), None, "start"),
        (date.min, None, "start"),
        (None, date.max, "end"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), None, "start"),
        (None, datetime.min.replace(tzinfo=timezone(timedelta(hours=12))), "end"),
    ],
)
def test_what_is_not_a_range_is_refused_with_its_field(start: Any, end: Any, field: str) -> None:
    with pytest.raises(InvalidQuery, match=f"^{field}: ") as caught:
        asked(start, end)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "name", ["", "Europe", "Europe/Berlin ", "../etc/passwd", "/etc/localtime", "CEST5", "\0", 7, None]
)
def test_what_is_not_a_time_zone_is_refused(name: Any) -> None:
    with pytest.raises(InvalidQuery, match=r"^timezone: must be the IANA name of a time zone"):
        read_zone(name)


def test_days_have_23_and_25_hours_when_the_clocks_change() -> None:
    def lengths(first: date, last: date) -> list[timedelta]:
        edges = asked(first, last, BERLIN).buckets("day").edges
        return [after - before for before, after in itertools.pairwise(edges)]

    assert lengths(date(2026, 3, 28), date(2026, 3, 30)) == [24 * HOUR, 23 * HOUR, 24 * HOUR]
    assert lengths(date(2026, 10, 24), date(2026, 10, 26)) == [24 * HOUR, 25 * HOUR, 24 * HOUR]


def test_the_hour_that_is_there_twice_is_two_hours() -> None:
    hours = asked(date(2026, 10, 25), date(2026, 10, 25), BERLIN).buckets("hour")
    assert len(hours.labels) == 25
    assert len(set(hours.labels)) == 25
    assert [label.hour for label in hours.labels[1:5]] == [1, 2, 2, 3]
    assert sorted(hours.labels) == list(hours.labels)


def test_weeks_begin_on_monday_also_over_the_new_year() -> None:
    weeks = asked(date(2026, 12, 30), date(2027, 1, 5), BERLIN).buckets("week")
    assert [label.date() for label in weeks.labels] == [date(2026, 12, 28), date(2027, 1, 4)]
    assert weeks.edges[0] == midnight(date(2026, 12, 30), BERLIN)  # the range cuts the first


def test_months_begin_on_the_first() -> None:
    months = asked(date(2027, 1, 31), date(2027, 3, 1)).buckets("month")
    assert [label.date() for label in months.labels] == [date(2027, 1, 1), date(2027, 2, 1), date(2027, 3, 1)]
    assert months.edges[1:3] == (datetime(2027, 2, 1, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC))


def test_a_day_that_an_island_skipped_has_no_bucket() -> None:
    days = asked(date(2011, 12, 28), date(2012, 1, 1), ZoneInfo("Pacific/Apia")).buckets("day")
    assert [label.day for label in days.labels] == [28, 29, 31, 1]
    assert sorted(set(days.edges)) == list(days.edges)


@pytest.mark.parametrize(("first", "last", "before", "hours"), [
    (date(2026, 11, 2), date(2026, 11, 8), date(2026, 10, 26), 7 * 24),
    (date(2026, 3, 30), date(2026, 3, 31), date(2026, 3, 28), 47),  # the clocks are set forward on the 29th
    (date(2026, 10, 25), date(2026, 10, 25), date(2026, 10, 24), 24),  # this one has 25 hours
    (date(2026, 10, 26), date(2026, 10, 26), date(2026, 10, 25), 25),
    (date(2027, 1, 1), date(2027, 1, 1), date(2026, 12, 31), 24),
])  # fmt: skip
def test_before_whole_days_come_as_many_whole_days(first: date, last: date, before: date, hours: int) -> None:
    found = asked(first, last, BERLIN)
    previous = found.previous()
    assert previous == Range(midnight(before, BERLIN), found.start, BERLIN)
    assert previous.end - previous.start == hours * HOUR
    # The same range written as instants is the same range.
    assert asked(found.start, found.end, BERLIN).previous() == previous


def test_before_anything_else_comes_what_is_as_long() -> None:
    start, end = datetime(2026, 3, 29, 10, tzinfo=UTC), datetime(2026, 3, 31, 22, tzinfo=UTC)
    assert asked(start, end, BERLIN).previous() == Range(start - 60 * HOUR, start, BERLIN)
    # Days of UTC are not days of Berlin.
    days = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC)
    assert asked(*days, BERLIN).previous().start == datetime(2026, 3, 27, tzinfo=UTC)
    assert asked(*days).previous().start == datetime(2026, 3, 27, tzinfo=UTC)


def test_before_a_day_without_a_midnight_comes_a_whole_day() -> None:
    santiago = ZoneInfo("America/Santiago")
    found = asked(date(2026, 9, 6), date(2026, 9, 6), santiago)
    assert found.start.astimezone(santiago).hour == 1
    assert found.previous().start.astimezone(santiago) == datetime(2026, 9, 5, tzinfo=santiago)


def test_more_buckets_than_anybody_can_use_are_refused() -> None:
    with pytest.raises(InvalidQuery, match="narrow the range"):
        asked(date(2000, 1, 1), date(2099, 1, 1)).buckets("hour")


def test_aggregates_answer_what_lies_between_their_steps() -> None:
    whole = asked(date(2026, 11, 1), date(2026, 11, 3)).buckets("day").split(DAY)
    assert whole.raw == []
    cut = (
        asked(datetime(2026, 11, 1, 10, 7, tzinfo=UTC), datetime(2026, 11, 4, 12, tzinfo=UTC)).buckets("day").split(DAY)
    )
    assert (cut.since, cut.until) == (datetime(2026, 11, 2, tzinfo=UTC), datetime(2026, 11, 4, tzinfo=UTC))
    assert cut.raw == [(cut.start, cut.since), (cut.until, cut.end)]


@pytest.mark.parametrize(("zone", "step", "answers"), [
    ("Europe/Berlin", HOUR, True), ("Europe/Berlin", DAY, False), ("Europe/London", DAY, True),
    ("Asia/Kolkata", HOUR, False), ("Asia/Kathmandu", HOUR, False), ("Asia/Kathmandu", QUARTER, True),
])  # fmt: skip
def test_aggregates_answer_for_zones_whose_days_begin_with_one_of_their_steps(
    zone: str, step: timedelta, answers: bool
) -> None:
    split = asked(date(2026, 11, 3), date(2026, 11, 5), ZoneInfo(zone)).buckets("day").split(step)
    assert (split.raw == []) is answers


def test_nothing_is_left_to_an_aggregate_that_does_not_know_the_filter() -> None:
    days = asked().buckets("day")
    assert days.split(DAY, known=False).raw == [(days.edges[0], days.edges[-1])]


def test_an_aggregate_answers_until_it_is_filled() -> None:
    range_ = asked(datetime(2026, 11, 1, 10, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)).buckets(None)
    split, second = range_.split(HOUR), datetime(2026, 11, 2, tzinfo=UTC)
    days = range_.split(DAY, filled_until=datetime(2026, 11, 7, 3, tzinfo=UTC))
    assert (days.since, days.until) == (second, datetime(2026, 11, 7, tzinfo=UTC))
    assert split.around(days) == (split.start, split.start, days.since, days.until, split.end, split.end)
    none = range_.split(DAY, filled_until=second)
    assert none.raw == [(split.start, split.end)]
    assert split.around(none) == (split.start, split.start, split.end, split.end, split.end, split.end)


def test_there_are_no_whole_days_where_local_days_begin_within_them() -> None:
    filled_until = datetime(2026, 12, 1, tzinfo=UTC)
    berlin = asked(date(2026, 11, 3), date(2026, 11, 9), ZoneInfo("Europe/Berlin"))
    days, together = berlin.buckets("day"), berlin.buckets(None)
    assert days.split(DAY, filled_until=filled_until).raw == [(days.edges[0], days.edges[-1])]
    whole = together.split(DAY, filled_until=filled_until)
    assert (whole.since.hour, whole.until.hour, whole.until - whole.since) == (0, 0, 6 * DAY)


MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2090, 1, 1), timezones=st.just(UTC))


@given(st.sampled_from(ZONES), st.datetimes(datetime(2000, 1, 2), datetime(2090, 1, 1)))
@settings(max_examples=500)
def test_a_midnight_is_the_first_instant_of_its_day(name: str, moment: datetime) -> None:
    zone = ZoneInfo(name)
    begins = midnight(moment.date(), zone)
    before = begins - timedelta(microseconds=1)
    assert before.astimezone(zone).date() < moment.date() <= begins.astimezone(zone).date()


@given(
    st.sampled_from(ZONES),
    MOMENTS,
    st.timedeltas(timedelta(microseconds=1), timedelta(days=40)),
    st.sampled_from(["hour", "day", "week", "month", None]),
    st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=500)
def test_every_instant_of_a_range_is_in_one_bucket_with_its_label(
    name: str, start: datetime, length: timedelta, step: Step | None, part: float
) -> None:
    zone = ZoneInfo(name)
    found = Range(start, start + length, zone)
    buckets = found.buckets(step)
    assert list(buckets.edges) == sorted(set(buckets.edges))
    assert (buckets.edges[0], buckets.edges[-1]) == (found.start, found.end)
    assert len(buckets.labels) == len(buckets.edges) - 1
    at = start + timedelta(microseconds=int(part * (length / timedelta(microseconds=1))))
    label = buckets.labels[number_of(at, buckets) - 1]
    day = at.astimezone(zone).date()
    wanted = {"day": day, "week": day - day.weekday() * DAY, "month": day.replace(day=1)}
    if step in wanted:
        assert label == midnight(wanted[step], zone)
    elif step == "hour":
        assert label <= at < label + HOUR
        assert label.astimezone(zone).minute == 0 or at.astimezone(zone).utcoffset() != label.utcoffset()


@given(MOMENTS, st.timedeltas(timedelta(microseconds=1), timedelta(days=3)), st.sampled_from([QUARTER, HOUR, DAY]))
def test_the_parts_of_a_range_are_all_of_it(start: datetime, length: timedelta, step: timedelta) -> None:
    split = Range(start, start + length, UTC).buckets(None).split(step)
    assert split.start <= split.since <= split.until <= split.end
    assert (split.start, split.end) == (start, start + length)
    if split.since < split.until:
        assert split.since == floor(split.since, step)
        assert split.until == floor(split.until, step)
        assert split.since - split.start < step
        assert split.end - split.until < step
