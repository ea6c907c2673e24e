"""What is looked at: the range, the filters and the page's own settings, all of which stand in the URL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, tzinfo
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import AnalyticsReader, Question
from asgi_analytics.reading.ranges import DAY, HOUR, Moment, Range, Step
from asgi_analytics.web.api.parameters import MOST_PARAMETERS

RANGES = {
    "24h": "Last 24 hours",
    "today": "Today",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
    "12m": "Last 12 months",
    "custom": "From … to …",
}
DAYS = {"today": 1, "7d": 7, "30d": 30, "90d": 90, "12m": 365}
DEFAULT = "7d"
SHARED = ("range", "start", "end", "compare", "service", "environment", "timezone")
"""What all pages have in their URLs."""
HOURS_UNTIL = timedelta(hours=49)
DAYS_UNTIL = timedelta(days=120)
"""Up to which range a chart has a point per hour, or per day; beyond it has one per week."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

Value = str | int | bool | list[str] | None


class View(msgspec.Struct, frozen=True):
    """What a request asks to see."""

    page: str
    given: Mapping[str, list[str]]
    """The parameters of the URL that are not empty."""
    range: str
    start: Moment
    end: Moment | None
    period: Range
    now: datetime
    zone_name: str

    @classmethod
    def read(cls, page: str, query: bytes, reader: AnalyticsReader, now: datetime) -> View:
        """Return the view of a URL. Raises `InvalidQuery`."""
        given = _parse(query)
        zone_name = _first(given, "timezone") or reader.timezone
        zone = reader.zone_of(zone_name)
        name = _first(given, "range") or ("custom" if "start" in given else DEFAULT)
        if name not in RANGES:
            raise InvalidQuery("range", f"must be one of {', '.join(RANGES)}")
        end: Moment | None = None
        start: Moment
        if name == "custom":
            start, end = _moment(given, "start"), _moment(given, "end")
        elif name == "24h":
            hour = now.replace(minute=0, second=0, microsecond=0)
            start, end = hour - 23 * HOUR, hour + HOUR
        else:
            start = now.astimezone(zone).date() - (DAYS[name] - 1) * DAY
        period = Range.read(start, end, zone, now)
        return cls(page, given, name, start, end, period, now, zone_name)

    @property
    def zone(self) -> tzinfo:
        """The zone whose days are shown."""
        return self.period.zone

    @property
    def compare(self) -> bool:
        """Whether the period before is shown beside."""
        return self.text("compare") == "1"

    @property
    def step(self) -> Step:
        """The step of a series: an hour, a day or a week."""
        length = self.period.end - self.period.start
        return "hour" if length <= HOURS_UNTIL else "day" if length <= DAYS_UNTIL else "week"

    def text(self, name: str) -> str:
        """Return a parameter of the URL; empty if it is not given."""
        return _first(self.given, name)

    def texts(self, name: str) -> list[str]:
        """Return all texts of a parameter."""
        return list(self.given.get(name, []))

    def arguments(self, question: Question) -> dict[str, Any]:
        """Return the range and the filters, as far as a question knows them."""
        known = question.types
        named = {"start": self.start, "end": self.end, "timezone": self.text("timezone")}
        filters = {"service": self.text("service"), "environment": self.text("environment")}
        return {name: value for name, value in (named | filters).items() if value and name in known}

    def before(self) -> dict[str, datetime]:
        """Return the period before as arguments of a question."""
        before = self.period.previous()
        return {"start": before.start, "end": before.end}

    def url(self, page: str, **changes: Value) -> str:
        """Return the URL of another page, relative, for the same range and filters with these ``changes``."""
        kept: dict[str, Value] = {name: self.texts(name) for name in SHARED if name in self.given}
        return url_of(page, kept | changes)

    def here(self, **changes: Value) -> str:
        """Return the URL of this page with ``changes``; None takes a parameter away."""
        return url_of(self.page, dict(self.given) | changes)

    def csv_of(self, panel: str) -> str:
        """Return the URL of what a panel of this page shows, as CSV: where the question behind it tells of more."""
        return self.here(csv=panel, cursor=None)

    def of_bucket(self, page: str, at: datetime, **changes: Value) -> str:
        """Return the URL of a page for one bucket of a series."""
        length = {"hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 31 * DAY}[self.step]
        return self.url(page, **_span(at, at + length, whole_days=self.step != "hour"), **changes)


def _span(start: datetime, end: datetime, *, whole_days: bool) -> dict[str, Value]:
    if whole_days:
        last = (end - timedelta(hours=2)).date()  # of a day of 23 hours, too
        return {"range": "custom", "start": start.date().isoformat(), "end": last.isoformat()}
    return {"range": "custom", "start": start.isoformat(), "end": end.isoformat()}


def _parse(query: bytes) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(query.decode("ascii"), errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError:  # a UnicodeError is one too
        raise InvalidQuery("URL", "has parameters that are not UTF-8, or too many of them") from None
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    return given


def _first(given: Mapping[str, list[str]], name: str) -> str:
    return given.get(name, [""])[0]


def _moment(given: Mapping[str, list[str]], name: str) -> Moment:
    text = _first(given, name)
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else msgspec.convert(text, datetime)
    except ValueError:  # a ValidationError of msgspec is one too
        raise InvalidQuery(name, "must be a date, 2026-11-30, or a time with its offset") from None


def url_of(page: str, parameters: Mapping[str, Value]) -> str:
    """Return a relative URL with those parameters that are not empty."""
    pairs = [
        (name, str(int(one)) if isinstance(one, bool) else str(one))
        for name, value in parameters.items()
        for one in (value if isinstance(value, list) else [value])
        if one not in (None, "", False)
    ]
    return f"./{page}" + (f"?{urlencode(pairs)}" if pairs else "")
