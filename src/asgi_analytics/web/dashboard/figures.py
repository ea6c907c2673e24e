"""How figures are written for people: counts, durations, rates, sizes and times."""

from __future__ import annotations

from datetime import datetime, tzinfo

NONE = "–"
"""Stands for what was not measured."""

SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def count(number: float | None) -> str:
    """Return a number with thousands separated; a fraction with two digits."""
    if number is None:
        return NONE
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.2f}"


def duration(ms: float | None) -> str:
    """Return milliseconds in the unit that suits them."""
    if ms is None:
        return NONE
    if ms == 0:
        return "0 ms"
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    for divisor, unit, most in ((1000, "s", 60), (60_000, "min", 60), (3_600_000, "h", 48)):
        if ms / divisor < most:
            return f"{ms / divisor:.1f} {unit}"
    return f"{ms / 86_400_000:.1f} d"


def percent(rate: float | None) -> str:
    """Return a fraction as a percentage."""
    if rate is None:
        return NONE
    return f"{rate * 100:.2f} %" if 0 < rate < 0.1 else f"{rate * 100:.1f} %"


def size(number: int | None) -> str:
    """Return bytes in the unit that suits them."""
    if number is None:
        return NONE
    at, value = 0, float(number)
    while value >= 1024 and at < len(SIZES) - 1:
        at, value = at + 1, value / 1024
    return f"{value:.0f} {SIZES[at]}" if at == 0 else f"{value:.1f} {SIZES[at]}"


def moment(at: datetime | None, zone: tzinfo) -> str:
    """Return an instant to the second, in a zone."""
    return NONE if at is None else f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def change(now: float | None, before: float | None) -> str:
    """Return how a number differs from that of the period before; empty if there is nothing to compare with."""
    if now is None or not before:
        return ""
    if now >= before * 10:
        return f"×{now / before:,.0f}"
    return f"{(now - before) / before * 100:+.0f} %".replace("-", "\u2212")
