"""What the hot path touches, field by field: of a request, and of the queue; and what is done with each event there.

The classes proper derive from these.
"""

from __future__ import annotations

from typing import Any

UNSAID: Any = object()
"""Stands where nobody has said who asks, or in which session; None would say that it is nobody."""


class RequestFields:
    """The fields of `RequestContext` and of the classes below it, which say what each is."""

    __slots__ = (
        "_endpoint",
        "_number",
        "_receive",
        "_request_id",
        "_send",
        "_session_id",
        "_user_id",
        "answering",
        "close_code",
        "db_duration_ms",
        "db_queries",
        "ended",
        "error_type",
        "excluded",
        "fingerprints",
        "has_trailers",
        "method",
        "native",
        "ordinary",
        "outcome",
        "outer",
        "response_bytes",
        "scope",
        "seen_errors",
        "send_error",
        "settings",
        "span",
        "started",
        "status",
        "trace",
        "ttfb",
    )


class QueueFields:
    """The fields of `EventQueue` that producers read and write, and what they do with them."""

    bytes_in: int
    bytes_out: int
    calm_bytes: int
    calm_length: int
    items: Any

    def put(self, item: Any, weight: int, captured: bool = False) -> bool:
        """Append an event unless that would pass a bound; False when it is full, or closed.

        ``weight`` is what it counts for in bytes; ``captured`` events have narrower bounds.
        """
        # The usual case, and all of it: nobody to wake, and no bound near.
        items = self.items
        if len(items) < self.calm_length and self.bytes_in - self.bytes_out + weight < self.calm_bytes:
            self.bytes_in += weight  # no call in this line: between two calls no other thread can come in
            items.append(item)
            return True
        return self.put_closely(item, weight, captured)

    def put_closely(self, item: Any, weight: int, captured: bool) -> bool:
        """Do what `put` does where somebody may have to be woken, or a bound is near."""
        raise NotImplementedError  # the queue knows its bounds


def fitting(items: list[Any], max_bytes: int) -> tuple[int, int]:
    """Return how many of the first items weigh no more than so much, but one at least, and what these weigh."""
    number = size = 0
    for item in items:
        weight = item[1] if type(item) is tuple else len(item)
        if size + weight > max_bytes and number > 0:
            break
        size += weight
        number += 1
    return number, size


def lines_of(items: list[Any], writers: list[Any]) -> list[bytes]:
    """Return the JSON of each item; raises whatever the writer of a record raises.

    ``writers`` make the JSON of tuples, by the number that a tuple begins with.
    """
    lines = []
    for item in items:
        kind = type(item)
        lines.append(item if kind is bytes else writers[item[0]](item) if kind is tuple else item.line())
    return lines
