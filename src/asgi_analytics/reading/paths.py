"""Which way people go: the pages and events of sessions, one after the other."""

from __future__ import annotations

from typing import Annotated

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import Moment
from asgi_analytics.reading.source import MOST_ROWS, Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("paths")

Depth = Annotated[int, msgspec.Meta(ge=2, le=20)]
Names = Annotated[int, msgspec.Meta(ge=1, le=100)]


class PathNode(msgspec.Struct, frozen=True):
    """A name at one position of paths."""

    id: str
    """The position and the name, ``1:/pricing``."""
    name: str
    """The page of a page view, else the event type; ``other`` stands for all names beyond the limit."""
    count: int
    """Sessions whose path has it there."""


class PathLink(msgspec.Struct, frozen=True):
    """Two names at positions that follow each other."""

    source: str
    """The id of a node."""
    target: str
    count: int
    """Sessions that go from one to the other."""


class Paths(msgspec.Struct, frozen=True):
    """Nodes and links, the most frequent first."""

    nodes: list[PathNode]
    links: list[PathLink]


@question("/paths")
async def query_paths(
    source: Source,
    start_event: Text | None = None,
    end_event: Text | None = None,
    depth: Depth = 5,
    *,
    limit: Names = 20,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
    environment: Text | None = None,
) -> Paths:
    """Count the sessions that take each step of a path of pages and tracked events, of those that began in the range.

    A path is the first ``depth`` steps of a session. With ``start_event``, a page or an event type, it begins at the
    first such step. With ``end_event`` it ends at the first such step, after that of the start if there is one, and has
    the ``depth`` steps up to it; positions are counted so that it is the last. Sessions without these steps do not
    count. A page view that tells no page is called ``page_view``.

    At each position the ``limit`` most frequent names are told apart, and all others are ``other``, so that the counts
    add up. By default the range is the last 7 whole days and today. Reads raw rows, and raises `InvalidQuery` for a
    range whose rows are gone, and for more than 10,000 nodes and links.
    """
    asked = source.range_of_week(start, end, timezone)
    async with source.snapshot() as snapshot:
        # Sessions that began in the range may go on after it.
        await snapshot.require_raw([(asked.start, max(asked.end, source.now()))], "this question")
        rows = await snapshot.records(
            SQL["steps"],
            asked.start,
            asked.end,
            service,
            environment,
            start_event,
            end_event,
            depth,
            limit,
            MOST_ROWS + 1,
        )
    if len(rows) > MOST_ROWS:
        raise InvalidQuery("limit", f"the answer has more than {MOST_ROWS:,} nodes and links: lower it, or the depth")
    return Paths(
        nodes=[PathNode(f"{n}:{name}", name, count) for n, name, next_name, count in rows if next_name is None],
        links=[
            PathLink(f"{n}:{name}", f"{n + 1}:{next_name}", count)
            for n, name, next_name, count in rows
            if next_name is not None
        ],
    )
