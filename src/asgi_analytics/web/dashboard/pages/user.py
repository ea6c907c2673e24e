"""User: what one person did."""

from __future__ import annotations

from collections import Counter

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import duration
from asgi_analytics.web.dashboard.pages import api, sessions
from asgi_analytics.web.dashboard.pages.base import PageKind, event_table, number, stat
from asgi_analytics.web.dashboard.panels import Chart, Column, Form, Line, Panel, Stats, Table, cell, shares


def parts(page: Page) -> list[Part]:
    """Return the parts of the page: of the user whom the URL names, or the way to one."""
    user = page.view.text("user_id")
    found = [Part("User", form(page))]
    if not user:
        return [*found, Part("Who calls", api.consumers(page))]
    return [
        *found,
        Part("Activity", activity(page, user)),
        Part("Sessions", sessions.rows(page, user_id=user)),
        Part("Timeline", timeline(page, user)),
    ]


async def form(page: Page) -> Form:
    """Return the field that asks for a user."""
    return Form(title="User", template="user.html", values={"user_id": page.view.text("user_id")})


async def activity(page: Page, user: str) -> list[Panel]:
    """Return what the user did, day by day and by type."""
    told = await page.ask("get_user_activity", user_id=user)
    rows = told.results
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row.events_breakdown)
    by_day = {row.date: row for row in rows}
    labels = [at for at in page.view.period.buckets("day").labels if at <= page.view.now]
    found = counts.most_common(12)
    empty = (
        "" if rows else "Nothing of this user in this range. Choose a longer one, or look at the spelling of the id."
    )
    return [
        Stats(
            title="Activity",
            stats=[
                stat("Active days", len(rows), "Days on which the user did anything."),
                stat("Events", sum(row.event_count for row in rows), told.says,
                     href=page.view.url("events", user_id=user)),
                stat("Sessions", sum(row.session_count for row in rows), told.says,
                     href=page.view.url("sessions", user_id=user)),
                stat("Time in sessions", sum(row.total_duration_ms for row in rows), told.says, write=duration),
            ],
        ),
        Chart(
            title="Events",
            says=told.says,
            csv=told.csv,
            empty=empty,
            unit="events",
            labels=labels,
            lines=[
                Line("Events", [by_day[at].event_count if at in by_day else 0 for at in labels], "events", "bar")
            ],
            links=[page.view.url("events", user_id=user, range="custom", start=f"{at:%Y-%m-%d}", end=f"{at:%Y-%m-%d}")
                   for at in labels],
            step="day",
            zone_name=page.view.zone_name,
        ),
        Table(
            title="What",
            says="Events of this user by type.",
            empty=empty,
            columns=[Column("Type"), Column("Events", is_number=True)],
            rows=[
                [cell(name, page.view.url("events", type=name, user_id=user), is_code=True, share=share), number(n)]
                for (name, n), share in zip(found, shares([n for _, n in found]), strict=True)
            ],
        ),
    ]  # fmt: skip


async def timeline(page: Page, user: str) -> Table:
    """Return the newest events of the user."""
    told = await page.ask("query_events", user_id=user, limit=50, cursor=page.view.text("events_cursor") or None)
    following = told.results.next
    href = page.view.here(events_cursor=following) if following else None
    return event_table(page, told, "Timeline", href=href, empty="Nothing of this user in this range.")


PAGE = PageKind("user", "User", parts)
