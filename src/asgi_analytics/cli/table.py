"""What ``analytics-migrate`` shows to people: aligned lines, first the database, last what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.admin.refresh import RefreshReport
from asgi_analytics.admin.roles import RolesReport
from asgi_analytics.database.names import quoted
from asgi_analytics.log import one_line
from asgi_analytics.migrate.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgi_analytics.migrate.report import Step

DESCRIPTIONS = {"writer": "inserts, and nothing else", "reader": "reads, and nothing else"}


def render(command: str, report: Report | RefreshReport | RolesReport) -> str:
    """Return the text of a report; of a dry run the SQL alone."""
    if not isinstance(report, RefreshReport) and report.sql is not None:
        return report.sql or "-- nothing is pending\n"
    lines = [one_line(f"{report.database}, schema {report.schema}")]
    if isinstance(report, RefreshReport):
        lines += aligned(
            [view.view, f"{view.start or 'the beginning'}", f"{view.end or 'now'}", milliseconds(view.duration_ms)]
            for view in report.refreshed
        )
        lines += [f"{one_line(note)}." for note in report.notes]
        lines.append("The aggregates are up to date." if report.refreshed else "Nothing was pending.")
        return "\n".join(lines) + "\n"
    if isinstance(report, RolesReport):
        lines += aligned(
            [role.name, DESCRIPTIONS[role.purpose], "made" if role.is_new else "was there"] for role in report.roles
        )
        lines += [f"{one_line(note)}." for note in report.notes]
        lines.append(f"Next: GRANT {quoted(report.roles[0].name)} TO the login roles of the application")
        return "\n".join(lines) + "\n"
    shown = [*report.applied, *(report.pending if command == "status" else ())]
    lines += aligned([step.name, step.description, state(step, command)] for step in shown)
    lines += [f"{one_line(note)}." for note in report.notes]
    lines.append(advice(command, report))
    return "\n".join(lines) + "\n"


def advice(command: str, report: Report) -> str:
    """Return the last line: how it stands, and what to do next."""
    phases = {step.phase for step in report.pending}
    count = "1 step is" if len(report.pending) == 1 else f"{len(report.pending)} steps are"
    if phases == {"post"} and command in ("pre", "status"):
        return f"{count} pending. Next: start the new version of the application, then analytics-migrate post"
    if "pre" in phases and "post" in phases:
        return f"{count} pending. Next: analytics-migrate all; or pre, then the new version, then post"
    if phases:
        return f"{count} pending. Next: analytics-migrate {min(phases)}"
    done = "Nothing was pending." if command != "status" and not report.applied else "Nothing is pending."
    if report.flavour == "postgresql" and command in ("all", "post"):
        return f"{done} Next: start the application, whose worker refreshes the aggregates, or put refresh in cron"
    return done if command == "status" else f"{done} Next: start the application"


def state(step: Step, command: str) -> str:
    """Return when a step was applied, or how long it took just now."""
    if step.applied_at is not None:
        return f"applied {step.applied_at:%Y-%m-%d %H:%M} UTC, {milliseconds(step.duration_ms)}"
    return "pending" if command == "status" else milliseconds(step.duration_ms)


def milliseconds(value: float | None) -> str:
    """Return a duration as people read it."""
    if value is None:
        return ""
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def aligned(rows: Iterable[list[str]]) -> list[str]:
    """Return the rows as lines with their columns below each other."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]
