"""Sessions: the visits behind a number; and one of them, with all that happened in it."""

from __future__ import annotations

from asgi_analytics.reading.events import Events
from asgi_analytics.web.dashboard.asking import Page, Part, Told
from asgi_analytics.web.dashboard.figures import count, duration
from asgi_analytics.web.dashboard.pages.base import PageKind, event_table, number, stat, time, user_cell
from asgi_analytics.web.dashboard.pages.overview import NO_VIEWS
from asgi_analytics.web.dashboard.panels import Column, Note, Panel, Stats, Table, cell

FILTERS = (
    "user_id", "visitor", "landing_page", "exit_page", "referrer", "channel", "utm_source", "utm_medium",
    "utm_campaign", "device_type", "browser", "os", "country",
)  # fmt: skip


def parts(page: Page) -> list[Part]:
    """Return the parts of the page: sessions that match the filters of the URL, or the one that it names."""
    if session := page.view.text("id"):
        return [Part("Session", one(page, session))]
    return [Part("Sessions", rows(page))]


async def rows(page: Page, **filters: str) -> Table:
    """Return the sessions that match the filters of the URL."""
    view = page.view
    given: dict[str, str | bool] = {name: view.text(name) for name in FILTERS if view.text(name)}
    if view.text("is_bounce"):
        given["is_bounce"] = view.text("is_bounce") == "true"
    given |= filters
    told = await page.ask("query_sessions", limit=50, cursor=view.text("cursor") or None, **given)
    found = told.results
    said = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in given.items() if name not in filters)
    total = "More than 10,000" if found.total is None else count(found.total)
    return Table(
        title="Sessions",
        says=told.says,
        csv=told.csv,
        note=f"{total} sessions" + (f" with {said}" if said else ""),
        empty=NO_VIEWS,
        columns=[
            Column("Began", view.zone_name),
            Column("User"),
            Column("Duration", is_number=True),
            Column("Page views", is_number=True),
            Column("Events", is_number=True),
            Column("Entry page"),
            Column("Channel"),
            Column("Country"),
            Column("Browser"),
        ],
        rows=[
            [
                time(page, row.started_at, view.url("sessions", id=row.id)),
                user_cell(page, row.user_id),
                number(row.duration_ms, duration),
                number(row.page_views),
                number(row.event_count),
                cell(row.landing_page, is_code=True),
                cell(row.channel),
                cell(row.country),
                cell(row.browser),
            ]
            for row in found.sessions
        ],
        next=view.here(cursor=found.next) if found.has_more else None,
    )


async def one(page: Page, session: str) -> list[Panel]:
    """Return one session with its events."""
    told = await page.ask("get_session", id=session)
    found = told.results
    place = ", ".join(filter(None, (found.city, found.country)))
    facts = (found.device_type, found.browser, found.os, place, found.channel, found.referrer, found.utm_campaign)
    shown: list[Panel] = [
        Stats(
            title="Session",
            note=" · ".join(filter(None, facts)),
            stats=[
                stat(
                    "Began", None, "The first event of the session.", write=lambda _: time(page, found.started_at).text
                ),
                stat("Duration", found.duration_ms, "From the first event to the last.", write=duration),
                stat("Page views", found.page_views, "In this session."),
                stat("Events", found.event_count, "Page views and tracked events."),
            ],
        )
    ]
    if found.user_id is not None:
        url = page.view.url("user", user_id=str(found.user_id))
        shown.append(
            Table(title="User", columns=[Column("User")], rows=[[cell(str(found.user_id), url, is_code=True)]])
        )
    if found.events is None:
        return [*shown, Note(title="Events", text="The events of this session are no longer kept.")]
    events = Events(found.events, len(found.events), len(found.events), False, None)
    return [*shown, event_table(page, Told(events, told.says, ""), "What happened")]


PAGE = PageKind("sessions", "", parts)
