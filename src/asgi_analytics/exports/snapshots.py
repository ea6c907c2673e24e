"""What lies between two snapshots: the rows that the later one saw and the earlier one did not.

A snapshot is what PostgreSQL's ``pg_current_snapshot()`` says, ``xmin:xmax:xip,…``: transactions below xmin are over,
those from xmax on had not begun, and those of xip were under way. Rows whose transactions the earlier one did not see
and the later one did are exactly those that were committed in between, however late, in whatever order.
"""

from __future__ import annotations

from typing import NamedTuple


class Snapshot(NamedTuple):
    """One snapshot, read."""

    xmin: int
    xmax: int
    under_way: frozenset[int]


class Transactions(NamedTuple):
    """A range of transactions, as a statement asks for it."""

    start: int
    end: int
    """Exclusive."""
    among: list[int] | None
    """Only these, if not None."""
    without: list[int]
    """None of these."""


def read(text: str) -> Snapshot:
    """Read a snapshot's text."""
    xmin, xmax, under_way = text.split(":")
    return Snapshot(int(xmin), int(xmax), frozenset(int(xid) for xid in under_way.split(",") if xid))


def between(earlier: Snapshot, later: Snapshot) -> list[Transactions]:
    """Return the transactions that the later snapshot saw and the earlier one did not, in the order of their numbers.

    First those that were under way, then those that have begun since: two ranges, because a columnstore has the least
    and the greatest number of a batch, which say nothing of a list.
    """
    late = sorted(xid for xid in earlier.under_way if xid < later.xmax and xid not in later.under_way)
    found = [Transactions(late[0], late[-1] + 1, late, [])] if late else []
    if earlier.xmax < later.xmax:
        open_still = sorted(xid for xid in later.under_way if xid >= earlier.xmax)
        found.append(Transactions(earlier.xmax, later.xmax, None, open_still))
    return found
