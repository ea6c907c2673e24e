"""What a page is, and what several pages show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from asgi_analytics.reading.ranges import number_of
from asgi_analytics.web.dashboard import figures
from asgi_analytics.web.dashboard.asking import Page, Part, Told
from asgi_analytics.web.dashboard.panels import Cell, Column, Mark, Stat, Table, cell

_T = TypeVar("_T")

DEPLOYED = "deployed"
"""The type of the events that charts mark: ``client.track(events.track("deployed", version="1.4"))``."""


class PageKind(msgspec.Struct, frozen=True):
    """One page of the dashboard."""

    path: str
    title: str
    """Its name in the menu; empty for one that is not there."""
    parts: Callable[[Page], list[Part]]


async def marks(page: Page) -> list[Mark]:
    """Return the deployments of the range."""
    told = await page.ask("query_events", event_types=[DEPLOYED], limit=50)
    return [Mark(one.timestamp, str(one.data.get("version", "deployed"))[:40]) for one in reversed(told.results.events)]


def buckets(page: Page) -> Sequence[datetime]:
    """Return the local hours, days or weeks of the range that have begun."""
    labels = page.view.period.buckets(page.view.step).labels
    return [label for label in labels if label <= page.view.now]


def summed(page: Page, pairs: Sequence[tuple[datetime, float]], *, before: bool = False) -> list[float]:
    """Return the sum of each bucket of the range, or of what each is compared to in the period ``before``."""
    steps = page.view.period.buckets(page.view.step)
    if before:
        steps = page.view.period.previous_buckets(steps)
    sums = [0.0] * len(steps.labels)
    for at, value in pairs:
        number = min(max(number_of(at, steps), 1), len(sums))
        sums[number - 1] += value
    return sums[: len(buckets(page))]


def placed(page: Page, pairs: Iterable[tuple[datetime, _T]], *, before: bool = False) -> list[_T | None]:
    """Return what falls into each bucket of the range, the last of it; None where nothing does."""
    steps = page.view.period.buckets(page.view.step)
    if before:
        steps = page.view.period.previous_buckets(steps)
    found: dict[int, _T] = {min(max(number_of(at, steps), 1), len(steps.labels)): value for at, value in pairs}
    return [found.get(number + 1) for number in range(len(buckets(page)))]


def links(page: Page, target: str, labels: Sequence[datetime], **changes: Any) -> list[str]:
    """Return where each bucket of a chart leads."""
    return [page.view.of_bucket(target, label, **changes) for label in labels]


def stat(
    label: str,
    value: float | None,
    says: str,
    *,
    write: Callable[[Any], str] = figures.count,
    before: float | None = None,
    href: str | None = None,
    good: bool | None = None,
) -> Stat:
    """Return a number; ``good`` tells whether more of it is better."""
    change = figures.change(value, before)
    is_good = None if good is None or not change or value == before else (value or 0) > (before or 0)
    return Stat(label, write(value), says, value, href, change, is_good if good or is_good is None else not is_good)


def number(value: float | None, write: Callable[[Any], str] = figures.count, **options: Any) -> Cell:
    """Return a cell with a figure."""
    return Cell(write(value), value, **options)


def time(page: Page, at: datetime | None, href: str | None = None) -> Cell:
    """Return a cell with an instant, in the zone that is looked at."""
    return Cell(figures.moment(at, page.view.zone), None if at is None else at.isoformat(), href, at=at)


def endpoint_cell(page: Page, endpoint: str | None, method: str | None = None, **options: Any) -> Cell:
    """Return a cell that leads to one endpoint."""
    if endpoint is None:
        return Cell("no route", None, more="requests that no route took")
    text = endpoint if method is None else f"{method} {endpoint}"
    return cell(text, page.view.url("api", endpoint=endpoint, method=method), is_code=True, **options)


def user_cell(page: Page, user_id: Any, **options: Any) -> Cell:
    """Return a cell that leads to one user."""
    if user_id is None:
        return cell(None)
    text = str(user_id)
    shown = f"{text[:13]}…" if len(text) == 36 else text
    return Cell(shown, text, page.view.url("user", user_id=text), is_code=True, **options)


def event_table(page: Page, told: Told, title: str, *, empty: str = "", href: str | None = None) -> Table:
    """Return events as a table, whose rows unfold to all that is known of them."""
    rows, details = [], []
    for one in told.results.events:
        context = one.context or {}
        known = {name: value for name, value in one.data.items() if value is not None}
        text = ", ".join(f"{name}: {_short(value)}" for name, value in list(known.items())[:6])
        rows.append(
            [
                time(page, one.timestamp),
                cell(one.event_type, page.view.url("events", type=one.event_type), is_code=True),
                cell(text[:200]),
                user_cell(page, one.user_id),
                cell(one.service),
            ]
        )
        details.append(
            [
                ("event", str(one.event_id)),
                ("data", _json(one.data)),
                ("context", _json(context)),
                ("session", one.session_id or "–"),
            ]
        )
    count = told.results.total
    note = f"{figures.count(count)} events" if count is not None else "More than 10,000 events"
    next_url = page.view.here(cursor=told.results.next) if told.results.has_more and href is None else href
    return Table(
        title=title,
        says=told.says,
        csv=told.csv,
        empty=empty,
        note=note,
        columns=[
            Column("Time", page.view.zone_name),
            Column("Event"),
            Column("What it says"),
            Column("User"),
            Column("Service"),
        ],
        rows=rows,
        details=details,
        next=next_url if told.results.has_more else None,
    )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:59] + "…"


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
