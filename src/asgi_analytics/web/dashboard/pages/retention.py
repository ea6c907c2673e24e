"""Retention: whether users come back, how often, and who is new."""

from __future__ import annotations

import asyncio
from typing import Any

from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import percent
from asgi_analytics.web.dashboard.pages.base import PageKind, number
from asgi_analytics.web.dashboard.panels import Cell, Chart, Column, Form, Line, Table, cell, shares

PERIODS = {"day": "Days", "week": "Weeks", "month": "Months"}
NO_USERS = "No user began in this range. Say who a user is with set_user(…), or user_id of an event."


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    return [
        Part("What is looked at", form(page)),
        Part("Cohorts", cohorts(page)),
        Part("Who is there", lifecycle(page)),
        Part("How often", stickiness(page)),
    ]


def _period(page: Page) -> str:
    period = page.view.text("period")
    return period if period in PERIODS else "day" if page.view.step != "week" else "week"


async def form(page: Page) -> Form:
    """Return the controls."""
    view = page.view
    values = {
        "target_event": view.text("target_event"),
        "returning_event": view.text("returning_event"),
        "period": _period(page),
        "periods": PERIODS,
        "total_periods": view.text("total_periods") or "8",
    }
    return Form(title="What is looked at", template="retention.html", values=values)


async def cohorts(page: Page) -> Table:
    """Return the cohorts as a triangle."""
    text = page.view.text("total_periods") or "8"
    how: dict[str, Any] = {
        "target_event": page.view.text("target_event") or None,
        "returning_event": page.view.text("returning_event") or None,
        "period": _period(page),
        "total_periods": int(text) if text.isdecimal() else text,
    }
    asked = [page.ask("query_retention", **how)]
    if page.view.compare:
        asked.append(page.ask("query_retention", **how, **page.view.before()))
    told, *earlier = await asyncio.gather(*asked)
    found = told.results
    periods = len(found.cohorts[0].retention) if found.cohorts else 0

    def share(rate: float | None, count: int | None = None, *, complete: bool = True) -> Cell:
        if rate is None:
            return cell("")
        text = f"{rate * 100:.0f} %" + ("" if complete else " *")
        more = "" if count is None else f"{count:,}"
        return Cell(text, rate, shade=round(rate * 10), more=more)

    rows = [
        [
            cell(f"{cohort.date:%Y-%m-%d}"),
            number(cohort.size),
            *(
                share(one.percentage, one.count if one.percentage is not None else None, complete=one.complete)
                for one in cohort.retention
            ),
        ]
        for cohort in found.cohorts
    ]
    if rows:
        together = [("All", found), *(("All, period before", one.results) for one in earlier)]
        rows[:0] = [
            [cell(label), number(sum(cohort.size for cohort in one.cohorts)), *map(share, _overall(one, periods))]
            for label, one in together
        ]
    name = PERIODS[_period(page)].rstrip("s")
    return Table(
        title="Cohorts",
        says=told.says,
        csv=told.csv,
        empty=NO_USERS,
        note="* is not over yet. The row of all is of periods that are over, weighted by size." if rows else "",
        columns=[Column("Began"), Column("Users", is_number=True)]
        + [Column(f"{name} {n}", is_number=True) for n in range(periods)],
        rows=rows,
    )


def _overall(found: Any, periods: int) -> list[float | None]:
    """Return the share of all cohorts that came back in each period; None where it is over for none of them."""
    known = {row.period: row.percentage for row in found.overall_retention}
    return [known.get(n) for n in range(periods)]


async def lifecycle(page: Page) -> Chart:
    """Return who is new, returns, comes again or stays away."""
    told = await page.ask(
        "query_lifecycle", interval=_period(page), event_type=page.view.text("returning_event") or None
    )
    rows = [row for row in told.results.data if row.date <= page.view.now]
    return Chart(
        title="Who is there",
        says=told.says,
        csv=told.csv,
        empty="" if rows else NO_USERS,
        unit="users",
        labels=[row.date for row in rows],
        lines=[
            Line("New", [row.new for row in rows], "users"),
            Line("Returning", [row.returning for row in rows], "visitors"),
            Line("Back after a pause", [row.resurrecting for row in rows], "sessions"),
            Line("Stayed away", [row.dormant for row in rows], "quiet"),
        ],
        step=_period(page),
        zone_name=page.view.zone_name,
    )


async def stickiness(page: Page) -> Table:
    """Return on how many days users are active."""
    told = await page.ask("query_stickiness", event_type=page.view.text("returning_event") or None)
    rows = told.results.buckets
    return Table(
        title="How often",
        says=told.says,
        csv=told.csv,
        empty=NO_USERS,
        columns=[Column("Active days"), Column("Users", is_number=True), Column("Of all", is_number=True)],
        rows=[
            [
                Cell(f"{row.days_active} day{'s' if row.days_active > 1 else ''}", row.days_active, share=share),
                number(row.users),
                number(row.percentage, percent),
            ]
            for row, share in zip(rows, shares([row.users for row in rows]), strict=True)
        ],
    )


PAGE = PageKind("retention", "Retention", parts)
