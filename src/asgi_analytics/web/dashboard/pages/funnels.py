"""Funnels: how many took one step after the other, who dropped out, and the funnels that are kept."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading import Filter, Step
from asgi_analytics.web.dashboard.asking import Page, Part
from asgi_analytics.web.dashboard.figures import count, duration, percent
from asgi_analytics.web.dashboard.pages.base import PageKind, number, time, user_cell
from asgi_analytics.web.dashboard.panels import (
    Column,
    Form,
    FunnelBars,
    FunnelStage,
    Note,
    Panel,
    Table,
    cell,
)
from asgi_analytics.web.dashboard.view import url_of

OPERATORS = {
    "": "anything",
    "exact": "is",
    "is_not": "is not",
    "contains": "contains",
    "not_contains": "does not contain",
    "is_set": "is there",
    "is_not_set": "is not there",
    "greater_than": "is greater than",
    "less_than": "is less than",
}
ATTRIBUTIONS = {"first_touch": "first event", "last_touch": "last event"}
UNITS = {"3600": "hours", "86400": "days"}
LEAST_STEPS = 3
"""Rows of the form."""


def parts(page: Page) -> list[Part]:
    """Return the parts of the page."""
    if page.view.text("name") and page.view.text("step_number"):
        return [Part("Who", conversions(page))]
    return [Part("Funnel", funnel(page)), Part("Kept funnels", kept(page))]


def _steps(page: Page) -> list[Step]:
    """Return the steps of the URL: a type each, with a filter if one is given beside it."""
    view = page.view
    return [
        step
        for number in range(1, 21)
        if (step := _step(*(view.text(f"{name}{number}").strip() for name in ("step", "field", "operator", "value"))))
    ]


def _step(event_type: str, field: str, operator: str, value: str) -> Step | None:
    if not event_type:
        return None
    if not field or operator not in OPERATORS or not operator:
        return Step(event_type)
    given: Any = None if operator in ("is_set", "is_not_set") else value
    if operator in ("greater_than", "less_than"):
        try:
            given = float(value)
        except ValueError:
            raise InvalidQuery("value", "must be a number, to compare it") from None
    if operator in ("exact", "is_not") and value in ("true", "false"):
        given = value == "true"
    return Step(event_type, [Filter(field, operator, given)])  # type: ignore[arg-type]  # is one of them


def _window(page: Page) -> float:
    text, unit = page.view.text("window") or "14", page.view.text("unit") or "86400"
    try:
        return float(text) * float(unit)
    except ValueError:
        raise InvalidQuery("window", "must be a number") from None


async def funnel(page: Page) -> list[Panel]:
    """Return the form, and what it asks."""
    view = page.view
    name = view.text("name")
    steps, window = _steps(page), _window(page)
    if name and not steps:
        saved = (await page.ask("get_funnel", name=name)).results
        steps, window = saved.steps, saved.conversion_window
    shown: list[Panel] = [_form(page, steps, window)]
    if not steps:
        text = (
            "Name the types of events that people do one after the other, at least two, and see how many get how far."
        )
        return [*shown, Note(title="A funnel", text=text)]
    exclusions = [one for one in re.split(r"[\s,]+", view.text("exclusions")) if one]
    options: dict[str, Any] = {
        "conversion_window": window,
        "order": view.text("order") or "ordered",
        "by": view.text("by") or "user",
        "breakdown": view.text("breakdown") or None,
        "attribution": view.text("attribution") or None,
        "exclusions": exclusions or None,
    }
    told = await page.ask("query_funnel", steps=steps, compare=view.compare, **options)
    found = told.results
    before = found.previous
    leads = bool(name) and not exclusions  # which are no part of a kept funnel
    stages = [
        FunnelStage(
            name=step.name,
            count=step.count,
            rate=step.conversion_rate_from_first,
            from_previous=percent(step.conversion_rate_from_previous),
            dropped=step.drop_off_count,
            median=duration(step.median_time_from_previous_ms),
            in_progress=step.in_progress,
            before=before.steps[n].conversion_rate_from_first if before else None,
            href=_who(page, name, n + 1) if leads else view.url("events", type=steps[n].event_type),
            dropped_href=_who(page, name, n + 1, dropped=True) if leads and n else None,
        )
        for n, step in enumerate(found.steps)
    ]
    median = duration(found.median_conversion_time_ms)
    summary = f"{percent(found.conversion_rate)} convert, half of them within {median}."
    if before:
        summary += f" {percent(before.conversion_rate)} in the period before."
    note = "" if name else "Keep the funnel by a name, and its numbers lead to who is behind them."
    shown.append(FunnelBars(title=name or "Funnel", says=told.says, stages=stages, summary=summary, note=note))
    if found.breakdown:
        shown.append(_breakdown(page, found.breakdown))
    return shown


def _who(page: Page, name: str, step: int, *, dropped: bool = False) -> str:
    view = page.view
    return view.url(
        "funnels", name=name, step_number=step, dropped=dropped, by=view.text("by"), order=view.text("order")
    )


def _form(page: Page, steps: list[Step], window: float) -> Form:
    view = page.view
    filled = [
        {
            "type": step.event_type,
            "field": step.where[0].field if step.where else "",
            "operator": step.where[0].operator if step.where else "",
            "value": _said(step.where[0].value) if step.where else "",
        }
        for step in steps
    ]
    rows = filled + [{"type": "", "field": "", "operator": "", "value": ""}] * max(1, LEAST_STEPS - len(filled))
    unit = "86400" if window % 86400 == 0 else "3600"
    return Form(
        title="Steps",
        template="funnels.html",
        values={
            "steps": rows[:20],
            "operators": OPERATORS,
            "window": f"{window / float(unit):g}",
            "unit": unit,
            "units": UNITS,
            "order": view.text("order") or "ordered",
            "by": view.text("by") or "user",
            "breakdown": view.text("breakdown"),
            "attribution": view.text("attribution") or "first_touch",
            "attributions": ATTRIBUTIONS,
            "exclusions": view.text("exclusions"),
            "json": msgspec.json.encode(steps).decode() if steps else "",
            "seconds": f"{window:g}",
            "name": view.text("name"),
            "may_change": page.may_change,
            "asks_token": page.asks_token,
        },
    )


def _said(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"


def _breakdown(page: Page, found: list[Any]) -> Table:
    names = [step.name for step in found[0].steps]
    which = ATTRIBUTIONS[page.view.text("attribution") or "first_touch"]
    return Table(
        title="By " + page.view.text("breakdown"),
        says=f"The same funnel by a value of the {which} of each attempt.",
        columns=[Column("Value"), *(Column(name, is_number=True) for name in names), Column("Convert", is_number=True)],
        rows=[
            [
                cell("all others" if row.value == "other" else row.value),
                *(number(step.count) for step in row.steps),
                number(row.steps[-1].conversion_rate_from_first, percent),
            ]
            for row in found
        ],
    )


async def kept(page: Page) -> Table:
    """Return the funnels that are kept."""
    told = await page.ask("list_funnels")
    return Table(
        title="Kept funnels",
        says=told.says,
        csv=told.csv,
        empty="Build a funnel above and keep it by a name: then it is here for everyone.",
        columns=[Column("Name"), Column("Steps"), Column("Within"), Column("Kept since", page.view.zone_name)],
        rows=[
            [
                cell(one.name, page.view.url("funnels", name=one.name), more=one.description or ""),
                cell(" → ".join(step.label for step in one.steps)),
                cell(duration(one.conversion_window * 1000)),
                time(page, one.created_at),
            ]
            for one in told.results
        ],
    )


async def conversions(page: Page) -> Table:
    """Return who reached a step of a kept funnel, or dropped out at it."""
    view = page.view
    step, name = view.text("step_number"), view.text("name")
    dropped = view.text("dropped") == "1"
    told = await page.ask(
        "query_funnel_conversions",
        name=name,
        step=int(step) if step.isdecimal() else step,
        dropped=dropped,
        order=view.text("order") or "ordered",
        by=view.text("by") or "user",
        limit=200,
    )
    rows = told.results
    what = "dropped out at" if dropped else "reached"
    return Table(
        title=f"Who {what} step {step} of {name}",
        says=told.says,
        csv=told.csv,
        empty="Nobody in this range.",
        note=f"The latest {count(len(rows))}" if len(rows) == 200 else f"{count(len(rows))} in all",
        columns=[
            Column("User"),
            Column("Session"),
            Column("Began", view.zone_name),
            Column("Came to step", is_number=True),
            Column("Completed", view.zone_name),
        ],
        rows=[
            [
                user_cell(page, row.user_id),
                cell(row.session_id, view.url("sessions", id=row.session_id) if row.session_id else None, is_code=True),
                time(page, row.started_at),
                number(row.current_step),
                time(page, row.completed_at),
            ]
            for row in rows
        ],
    )


def changed(form: dict[str, str]) -> tuple[str, dict[str, Any], str]:
    """Return what a form changes: the question, its arguments, and where to go then. Raises `InvalidQuery`."""
    name = form.get("name", "").strip()
    if form.get("action") == "delete":
        return "delete_funnel", {"name": name}, "./funnels"
    try:
        steps = msgspec.json.decode(form.get("steps", ""), type=list[Step])
        window = float(form.get("window", ""))
    except ValueError:  # a ValidationError of msgspec is one too
        raise InvalidQuery("steps", "must be those that the page was made of: load it again") from None
    arguments: dict[str, Any] = {"name": name, "steps": steps, "conversion_window": window}
    if description := form.get("description", "").strip():
        arguments["description"] = description
    return "create_funnel", arguments, url_of("funnels", {"name": name})


PAGE = PageKind("funnels", "Funnels", parts)
