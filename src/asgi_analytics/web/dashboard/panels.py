"""What a page is made of: figures, charts, tables and the like, each with the sentence that says what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

Colour = Literal["requests", "errors", "warnings", "visitors", "sessions", "views", "events", "users", "time", "quiet"]
"""The same thing has the same colour on all pages."""


class Cell(msgspec.Struct, frozen=True):
    """One figure or text of a table."""

    text: str
    value: float | int | str | None = None
    """The figure as the API gives it."""
    href: str | None = None
    at: datetime | None = None
    share: float | None = None
    """From 0 to 1, of the greatest in its column: drawn as a bar."""
    is_code: bool = False
    spark: tuple[float, ...] = ()
    """A small chart of these numbers."""
    more: str = ""
    """A second, quieter line."""
    shade: int | None = None
    """From 0 to 10: how dark the cell is."""


class Column(msgspec.Struct, frozen=True):
    """The head of a column."""

    label: str
    unit: str = ""
    is_number: bool = False
    title: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a page."""

    kind: ClassVar[str] = "note"

    title: str
    says: str = ""
    """What is counted, in one sentence."""
    csv: str | None = None
    """The URL of the rows as CSV."""
    empty: str = ""
    """What to add to the application so that there is something to see."""
    is_half: bool = False
    """Whether another panel fits beside it."""
    note: str = ""


class Note(Panel, frozen=True, kw_only=True):
    """A text, for instance why there is nothing else."""

    text: str
    is_error: bool = False


class Stat(msgspec.Struct, frozen=True):
    """One number at the top of a page."""

    label: str
    text: str
    says: str
    value: float | int | str | None = None
    href: str | None = None
    change: str = ""
    """Against the period before."""
    is_good: bool | None = None
    """Whether the change is for the better."""


class Stats(Panel, frozen=True, kw_only=True):
    """Some numbers."""

    kind: ClassVar[str] = "stats"

    stats: list[Stat]


class Line(msgspec.Struct, frozen=True):
    """One series of a chart."""

    label: str
    values: Sequence[float | None]
    colour: Colour
    form: Literal["bar", "line", "thin", "low", "high"] = "line"
    """``thin`` is a comparison; ``low`` and ``high`` are the two edges of a band."""


class Mark(msgspec.Struct, frozen=True):
    """Something that happened at an instant, for instance a deployment."""

    at: datetime
    label: str


class Chart(Panel, frozen=True, kw_only=True):
    """Series over time. The page has them as a table, of which the script draws the chart."""

    kind: ClassVar[str] = "chart"

    unit: str
    labels: Sequence[datetime]
    lines: Sequence[Line]
    links: Sequence[str] = ()
    """Where each label leads."""
    marks: Sequence[Mark] = ()
    step: str = "day"
    zone_name: str = "UTC"


class Table(Panel, frozen=True, kw_only=True):
    """Rows."""

    kind: ClassVar[str] = "table"

    columns: list[Column]
    rows: list[list[Cell]]
    next: str | None = None
    """The URL of the next page."""
    tabs: Sequence[tuple[str, str, bool]] = ()
    """Other ways to see it: a label, a URL, and whether it is this one."""
    details: Sequence[Sequence[tuple[str, str]]] = ()
    """What can be unfolded below each row: names and texts."""


def rows_of(panel: Table | Chart) -> list[list[Any]]:
    """Return what a table or a chart shows: its head, and its rows with the figures as the API gives them."""
    if isinstance(panel, Chart):
        head: list[Any] = [panel.step, *(line.label for line in panel.lines)]
        return [head, *([at.isoformat(), *values] for at, *values in zip(panel.labels, *_values(panel), strict=True))]
    head = [f"{column.label} ({column.unit})" if column.unit else column.label for column in panel.columns]
    return [head, *([one.value for one in row] for row in panel.rows)]


def with_csv(panel: Panel, url: str) -> Panel:
    """Return a panel with the URL of what it shows, if it is a table or a chart that has no better one."""
    shown = panel.rows if isinstance(panel, Table) else panel.labels if isinstance(panel, Chart) else ()
    if panel.csv is None and shown:
        return msgspec.structs.replace(panel, csv=url)
    return panel


def _values(chart: Chart) -> list[list[float | None]]:
    length = len(chart.labels)
    return [[*line.values, *([None] * length)][:length] for line in chart.lines]


class FunnelStage(msgspec.Struct, frozen=True):
    """One step of a funnel."""

    name: str
    count: int
    rate: float | None
    from_previous: str
    dropped: int
    median: str
    in_progress: int
    before: float | None = None
    """The rate of the period before."""
    href: str | None = None
    dropped_href: str | None = None


class FunnelBars(Panel, frozen=True, kw_only=True):
    """A funnel as bars."""

    kind: ClassVar[str] = "funnel"

    stages: list[FunnelStage]
    summary: str


class Code(Panel, frozen=True, kw_only=True):
    """Lines of program text, for instance a stack."""

    kind: ClassVar[str] = "code"

    lines: list[tuple[str, str]]
    """What it says, and where."""


class Form(Panel, frozen=True, kw_only=True):
    """The controls of a page, by a template of its own."""

    kind: ClassVar[str] = "form"

    template: str
    values: dict[str, Any]


def cell(text: str | None, href: str | None = None, **options: Any) -> Cell:
    """Return a cell with a text, or with what stands for none."""
    return Cell("–" if text is None or text == "" else text, text, href, **options)


def shares(values: Sequence[float | None]) -> list[float]:
    """Return each number as a fraction of the greatest."""
    most = max((value or 0 for value in values), default=0) or 1
    return [(value or 0) / most for value in values]
