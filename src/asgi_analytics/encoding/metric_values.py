"""What is recorded as a metric: names and tags as they can be stored, and values as their sums."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from asgi_analytics.encoding.metric_record import (
    LARGEST,
    MAX_NAME,
    MAX_TAG_NAME,
    MAX_TAG_TEXT,
    MAX_TAGS,
    Series,
    Sums,
    bin_of,
)
from asgi_analytics.encoding.text import clean_text

_NUMBERS = frozenset({int, float})


def clean_series(name: Any, unit: Any, tags: dict[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    """Return what names a series as it can be stored, its tags in order. Raises ValueError that says what cannot be."""
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME:
        raise ValueError(f"the name of a metric is a text of 1 to {MAX_NAME} characters")
    name = clean_text(str.__str__(name))
    if unit is not None:
        if not isinstance(unit, str) or len(unit) > MAX_NAME:
            raise ValueError(f"{name}: a unit is a text of at most {MAX_NAME} characters")
        unit = clean_text(str.__str__(unit))
    if len(tags) > MAX_TAGS:
        raise ValueError(f"{name}: {len(tags)} tags; at most {MAX_TAGS} are stored")
    cleaned = {}
    for tag in sorted(tags):
        value = tags[tag]
        if len(tag) > MAX_TAG_NAME:
            raise ValueError(f"{name}: the name of a tag is a text of at most {MAX_TAG_NAME} characters")
        if isinstance(value, str):
            if len(value) > MAX_TAG_TEXT:
                raise ValueError(f"{name}: a tag has more than {MAX_TAG_TEXT} characters")
            value = clean_text(str.__str__(value))
        elif isinstance(value, int) and type(value) is not bool:
            value = int(value)
            if not -(2**63) <= value < 2**63:
                raise ValueError(f"{name}: a tag is an integer of more than 64 bits")
        elif type(value) is not bool:
            raise ValueError(f"{name}: a tag is a {type(value).__name__}; use a str, an int or a bool")
        cleaned[clean_text(tag)] = value
    return name, unit, cleaned


def sums_of(values: list[Any], series: Series, refusals: list[tuple[str, str]]) -> Sums | None:
    """Return the sums of the values of one series; None if none of them is a number."""
    has_bins = series.metric_type != "counter"
    try:
        types = set(map(type, values))
        total = sum(values) if types == {int} else math.fsum(values)
        least, most = min(values), max(values)
        if types <= _NUMBERS and math.isfinite(total) and least >= -LARGEST and most <= LARGEST:
            bins = Counter(map(bin_of, values)) if has_bins else None
            return Sums(len(values), total, least, most, values[-1], bins)
    except (TypeError, ValueError, OverflowError):
        pass  # each by itself, then
    numbers = []
    for value in values:
        number = _finite(value)
        if number is None:
            refusals.append(("invalid", f"{series.name}: the value is no number from -1e300 to 1e300"))
        else:
            numbers.append(number)
    if not numbers:
        return None
    total = math.fsum(numbers)  # of so few at once it does not overflow; the line holds no more than the largest number
    bins = Counter(map(bin_of, numbers)) if has_bins else None
    return Sums(len(numbers), total, min(numbers), max(numbers), numbers[-1], bins)


def _finite(value: Any) -> float | None:
    if isinstance(value, str | bytes | bytearray):
        return None
    try:
        number = float(value)
    except Exception:  # whatever an object does instead of being a number
        return None
    return number if -LARGEST <= number <= LARGEST else None
