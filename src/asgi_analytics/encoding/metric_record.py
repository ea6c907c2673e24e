"""The record of a metric: what was recorded of one series in one interval."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from asgi_analytics.encoding.records import RECORD_BYTES, Record
from asgi_analytics.events.base import METRIC

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TAGS = 20
MAX_NAME = 255
"""Characters of a name, and of a unit."""
MAX_TAG_NAME = 255
MAX_TAG_TEXT = 1_000
"""Characters of the name of a tag, and of its value."""

GROWTH = 1.04
"""How much wider than its lower end each bin of a histogram is. What stands for a bin, ``2 * GROWTH ** i / (GROWTH +
1)``, is as far from one end as from the other: (GROWTH - 1) / (GROWTH + 1) = 1.96 %."""

MIDDLE = 20_000
"""The bin of 1.0. The exponents of floats are within -18,981 and 18,098, so positive bins are those of positive values,
negative ones those of negative values, and all are in the order of the values."""

_PER_BIN = 1 / math.log(GROWTH)
LARGEST = 1e300
"""The largest number that is stored, of either sign: sums of larger ones overflow in the database."""
_ceil, _ln = math.ceil, math.log


def bin_of(value: float) -> int:
    """Return the bin of a finite value: 0 for zero, else with the sign of the value, ``MIDDLE + ceil(ln |x| / ln g)``.

    DDSketch (Masson, Rim and Lee, 2019), section 2.1, with g = 1.04.
    """
    if value > 0:
        return MIDDLE + _ceil(_ln(value) * _PER_BIN)
    if value < 0:
        return -(MIDDLE + _ceil(_ln(-value) * _PER_BIN))
    return 0


class Series:
    """What names a series. Two are equal only if they are one object."""

    __slots__ = ("metric_type", "name", "tags", "unit")

    def __init__(self, metric_type: str, name: str, unit: str | None, tags: dict[str, Any]) -> None:
        self.metric_type = metric_type
        self.name = name
        self.unit = unit
        self.tags = tags


class Sums(msgspec.Struct, gc=False):
    """What was recorded of a series. Nothing is changed after it is made: two are added up to a third."""

    count: int
    total: float
    least: float
    most: float
    last: float
    bins: Counter[int] | None
    """How many values are in each bin; None for a counter."""
    order: int = 0
    """Of the last value, among those of the process; 0 where nobody asks for the last one."""

    def __add__(self, other: Sums) -> Sums:
        """Return the sums of both; of two that have no order, the other one is the later."""
        later = self if self.order > other.order else other
        bins = self.bins
        if bins is not None and other.bins is not None:
            bins = bins.copy()
            for number, count in other.bins.items():
                bins[number] += count
        return Sums(
            self.count + other.count,
            self.total + other.total,
            self.least if self.least <= other.least else other.least,
            self.most if self.most >= other.most else other.most,
            later.last,
            bins,
            later.order,
        )


class MetricData(msgspec.Struct, gc=False, omit_defaults=True):
    """The ``data`` of the line of a metric."""

    name: str
    metric_type: str
    unit: str | None
    tags: dict[str, Any]
    count: int
    sum: float
    min: float
    max: float
    last: float
    bins: tuple[int, ...] | None = None
    """In rising order."""
    counts: tuple[int, ...] | None = None
    """How many values each of the bins has."""


class MetricRecord(Record, gc=False):
    """What was recorded of one series in one interval."""

    series: Series
    sums: Sums

    event_type: ClassVar[str] = METRIC

    def data(self) -> MetricData:
        """Return what becomes the ``data`` of the line."""
        series, sums = self.series, self.sums
        bins: tuple[int, ...] | None = None
        counts: tuple[int, ...] | None = None
        if sums.bins is not None:
            bins, counts = zip(*sorted(sums.bins.items()), strict=True)
        return MetricData(
            series.name,
            series.metric_type,
            series.unit,
            series.tags,
            sums.count,
            _as_float(sums.total),
            float(sums.least),
            float(sums.most),
            float(sums.last),
            bins,
            counts,
        )


def weight_of_series(series: Series, sums: Sums) -> int:
    """Return what a record counts for in the queue, in bytes."""
    texts = sum(len(tag) + (len(value) if type(value) is str else 8) for tag, value in series.tags.items())
    return RECORD_BYTES + len(series.name) + texts + (0 if sums.bins is None else 10 * len(sums.bins))


def _as_float(total: float) -> float:
    """Return a sum as JSON can hold it: the largest number where it is larger."""
    return float(max(-LARGEST, min(LARGEST, total)))


class _Type(msgspec.Struct, gc=False):
    event_type: str


_decode_type = msgspec.json.Decoder(_Type).decode
_MARK = f'"{METRIC}"'.encode()


def _is_metric(line: bytes) -> bool:
    """Tell whether a line holds a metric."""
    if _MARK not in line:
        return False
    try:
        return _decode_type(line).event_type == METRIC
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def metrics_in(lines: Sequence[bytes]) -> list[int]:
    """Return the places of the lines that hold a metric."""
    if _MARK not in b"\n".join(lines):  # nearly always, and much quicker than to look into each
        return []
    return [place for place, line in enumerate(lines) if _is_metric(line)]
