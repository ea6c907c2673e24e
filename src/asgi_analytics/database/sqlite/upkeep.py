"""The upkeep: fill the aggregates, drop what is past its retention, cut the log; in many small transactions.

Each step is safe to repeat, so an upkeep that was killed is simply done again.
"""

from __future__ import annotations

import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.database import blocks
from asgi_analytics.database.sqlite.connection import SqliteKeeper, transaction
from asgi_analytics.database.sqlite.times import from_text, to_text
from asgi_analytics.events.base import known_categories

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from asgi_analytics.database.sqlite.url import SqliteUrl

SQL = blocks.load("asgi_analytics.database.sqlite", "upkeep.sql")

ABANDONED_SECONDS = 600.0
"""How long the upkeep stays another process's that does no step of it any more."""

PARTS = "analytics_session_parts"
LONGEST = 36_500
"""Days for which rows can be kept."""

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_STEPS = {"hour": _HOUR, "day": _DAY}


class Filled(msgspec.Struct, frozen=True):
    """One view, brought up to date over a range."""

    view: str
    start: datetime
    end: datetime
    duration_ms: float


class SqliteUpkeep:
    """Does the upkeep of one database, one process at a time."""

    def __init__(self, url: SqliteUrl) -> None:
        self._keeper = SqliteKeeper(url)
        self._owner = ""

    def close(self) -> None:
        """Close the connection."""
        self._keeper.close()

    def steps(
        self, since: datetime | None = None, until: datetime | None = None, *, aggregates_only: bool = False
    ) -> Iterator[Filled | str]:
        """Do one step after the other, each in a transaction, and tell what was done.

        With a range only the buckets that touch it are filled. Nothing is done while another process does it: then
        there is not even one step.
        """
        self._owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._keeper.close()  # with what an upkeep that was given up has left in temp
        if not self._do(self._take):
            return
        try:
            yield "taken"
            yield from self._fill(since, until)
            if since is None and until is None and not aggregates_only:
                yield from self._forget()
        except Exception:
            self._release()
            raise
        self._release()
        if since is None and until is None and not aggregates_only:
            # Outside a transaction. A reader that is at the log keeps it from being cut: then the next time.
            with self._keeper.connection() as connection:
                for name in ("limit_analysis", "optimize", "checkpoint"):
                    connection.execute(SQL[name]).fetchall()
            yield "checkpoint"

    def _release(self) -> None:
        self._do(lambda connection: connection.execute(SQL["release"], {"owner": self._owner}))

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with self._keeper.connection() as connection, transaction(connection):
            return work(connection)

    def _step(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        def renewed(connection: sqlite3.Connection) -> Any:
            self._take(connection)
            return work(connection)

        return self._do(renewed)

    def _take(self, connection: sqlite3.Connection) -> bool:
        now = datetime.now(UTC)
        stale = now - timedelta(seconds=ABANDONED_SECONDS)
        times = {"owner": self._owner, "now": to_text(now), "stale": to_text(stale)}
        return connection.execute(SQL["take"], times).rowcount > 0

    # -- aggregates

    def _fill(self, since: datetime | None, until: datetime | None) -> Iterator[Filled | str]:
        self._step(_collect)
        yield "collected"
        pending = self._step(partial(_pending, since=since, until=until))
        if pending:
            self._make_facts()
        for _, same_day in groupby(pending, key=lambda one: one[1][:10]):
            ranges = list(same_day)
            self._read_facts(min(start for _, start, _ in ranges), max(end for _, _, end in ranges))
            for view, start, end in ranges:
                begun = time.perf_counter()
                self._step(partial(_fill_range, view=view, since=start, until=end))
                duration_ms = round((time.perf_counter() - begun) * 1000, 3)
                yield Filled(view=view, start=from_text(start), end=from_text(end), duration_ms=duration_ms)
        if pending:
            self._drop_facts()
        if since is None and until is None:
            self._step(_complete)
        for day in self._step(lambda connection: [row[0] for row in connection.execute(SQL["days"])]):
            self._step(partial(_fill_day, day=day))
            yield day
        self._step(_fill_metrics)
        yield "metrics"

    # What twenty views compute of a day is computed of the same events, and most of the time would go into reading
    # their JSON again for each. So the facts of a day are read once, into a table of the connection, and the live parts
    # of the views, which are made in temp once more, find it there under the name of the view.

    def _make_facts(self) -> None:
        with self._keeper.connection() as connection:
            connection.execute(SQL["make_facts"])
            connection.execute(SQL["index_facts"])
            for (sql,) in connection.execute(SQL["live_views"]).fetchall():
                connection.execute(sql.replace("CREATE VIEW", "CREATE TEMP VIEW", 1))

    def _read_facts(self, since: str, until: str) -> None:
        with self._keeper.connection() as connection:
            connection.execute(SQL["forget_facts"])
            connection.execute(SQL["read_facts"], {"since": since, "until": until})

    def _drop_facts(self) -> None:
        with self._keeper.connection() as connection:
            connection.execute(SQL["drop_facts"])

    # -- retention

    def _forget(self) -> Iterator[str]:
        now = datetime.now(UTC)

        def begin(connection: sqlite3.Connection) -> list[str]:
            forget_visitors(connection)
            connection.execute(SQL["expire"], {"now": to_text(now)})
            return [row[0] for row in connection.execute(SQL["types"])]

        types = self._step(begin)
        yield "expired"
        for event_type in types:
            while self._step(partial(_forget_events, event_type=event_type, now=now)):
                yield event_type
        while self._step(_forget_metrics):
            yield "metrics"


def forget_visitors(connection: sqlite3.Connection) -> None:
    """Forget the keys and visitors of more than two days ago: the key of a day 48 hours after the day began."""
    now = datetime.now(UTC)
    connection.execute(SQL["forget_keys"], {"day": (now - _DAY).date().isoformat()})
    connection.execute(SQL["forget_visitors"], {"moment": to_text(now - 2 * _DAY)})


def _collect(connection: sqlite3.Connection) -> None:
    """Sort in what has changed."""
    for name in ("sort_in", "sort_in_days", "forget_changes", "forget_gone"):
        connection.execute(SQL[name])


def _bounds() -> dict[str, Any]:
    """Return the ends of the hours and of the days that were complete an hour ago."""
    complete = datetime.now(UTC) - _HOUR
    return {"hour": to_text(_floor(complete, _HOUR)), "day": to_text(_floor(complete, _DAY))}


def _pending(
    connection: sqlite3.Connection, since: datetime | None, until: datetime | None
) -> list[tuple[str, str, str]]:
    """Return the ranges to fill, the oldest first: one per view and day, from its first such bucket to its last."""
    values = _bounds() | {
        "since": None if since is None else to_text(_floor(since.astimezone(UTC), _HOUR)),
        "since_day": None if since is None else to_text(_floor(since.astimezone(UTC), _DAY)),
        "until": None if until is None else to_text(until),
    }
    ranges: dict[tuple[str, str], tuple[str, str]] = {}
    for view, bucket, step in connection.execute(SQL["pending"], values):
        key = (bucket[:10], view)
        start, _ = ranges.get(key, (bucket, ""))
        ranges[key] = (start, to_text(from_text(bucket) + _STEPS[step]))
    return [(view, *ranges[day, view]) for day, view in sorted(ranges)]


def _fill_range(connection: sqlite3.Connection, view: str, since: str, until: str) -> None:
    """Compute the buckets of a view from ``since`` up to ``until`` again; after the parts of sessions the sessions."""
    values = {"view_name": view, "since": since, "until": until}
    row = connection.execute(SQL["fills"], (view,)).fetchone()
    if row is None:
        return
    # Facts may be read before a person is erased, and must not come back then.
    have_changed = connection.execute(SQL["have_changed"], values).fetchone()[0]
    names = {"view_name": view, "bucket_column": row[0], "schema": "main" if have_changed else "temp"}
    connection.execute(SQL["begin_fill"], values)
    connection.execute(SQL["clear"].format(**names), values)
    connection.execute(SQL["fill"].format(**names))
    if view == PARTS:
        join_sessions(connection)
    connection.execute(SQL["forget_stale"], values)
    connection.execute(SQL["end_fill"], values)
    connection.execute(SQL["end_range"])


def join_sessions(connection: sqlite3.Connection) -> None:
    """Bring the filled sessions in line with their parts, those of the range that ``analytics_fills`` names."""
    joined = connection.execute(SQL["joined"]).fetchall()
    connection.executemany(SQL["forget_session"], [row[1:4] for row in joined if row[0]])
    connection.executemany(SQL["add_session"], [row[1:] for row in joined if not row[0]])


def end_range(connection: sqlite3.Connection) -> None:
    """Let the live part of every view begin where the filled part ends."""
    connection.execute(SQL["end_range"])


def _complete(connection: sqlite3.Connection) -> None:
    connection.execute(SQL["complete"], _bounds())
    connection.execute(SQL["end_range"])


def _fill_day(connection: sqlite3.Connection, day: str) -> None:
    """Compute what users did on a day, and how features were used."""
    known = known_categories()
    names = {name.removesuffix("_completed") for name in known if name.endswith("_completed")}
    pairs = sorted(name for name in names if f"{name}_failed" in known)
    values = {
        "date": day[:10],
        "since": day,
        "until": to_text(from_text(day) + _DAY),
        "pairs": msgspec.json.encode(pairs).decode(),
    }
    for name in (
        "forget_user_activity",
        "fill_user_activity",
        "forget_feature_usage",
        "fill_feature_usage",
        "forget_day",
    ):
        connection.execute(SQL[name], values)


def _fill_metrics(connection: sqlite3.Connection) -> None:
    """Compute the hours and days of metrics that are over and have changed."""
    now = datetime.now(UTC)
    values = {"hour": to_text(_floor(now, _HOUR)), "day": to_text(_floor(now, _DAY))}
    noted = connection.execute(SQL["metric_hours"], values).fetchall()
    gone_before = connection.execute(SQL["gone_before"]).fetchone()[0]
    for hour, is_late in noted:
        if not is_late:
            connection.execute(SQL["clear_metric_hour"], (hour,))
        connection.execute(SQL["note_metric_day"], (f"{hour[:10]}T00:00:00.000000Z",))
    if noted:
        # What came late, of hours whose rows are gone, is added to them as a row of its own.
        connection.execute(SQL["set_gone_before"], ("",))
        connection.execute(SQL["fill_metric_hours"], values)
        connection.execute(SQL["forget_late_metrics"], (gone_before,))
        connection.execute(SQL["set_gone_before"], (gone_before,))
        connection.execute(SQL["forget_metric_changes"], (values["hour"],))
    for name in ("clear_metric_days", "fill_metric_days", "forget_metric_days"):
        connection.execute(SQL[name], values)
    if noted:
        first = from_text(min(hour for hour, _ in noted))
        day = _floor(first, _DAY)
        days_since = min(day - day.weekday() * _DAY, day.replace(day=1))
        connection.execute(SQL["show_metrics"], (to_text(first), to_text(days_since)))
        connection.execute(SQL["fill_metric_aggregates"])
        connection.execute(SQL["show_metrics"], ("", ""))


def _forget_metrics(connection: sqlite3.Connection) -> bool:
    """Delete the next thousand rows of metrics whose time is over; False if there are none."""
    now = datetime.now(UTC)
    gone_before, keep = connection.execute(SQL["gone_before"]).fetchone()
    if keep is None:
        return False
    until = to_text(_floor(now - timedelta(days=keep), _DAY))
    if connection.execute(SQL["metric_hours"], {"hour": until}).fetchone() is not None:
        return False  # some came late since the hours were filled
    connection.execute(SQL["set_gone_before"], (max(gone_before, until),))
    number = connection.execute(SQL["forget_metrics"], (until,)).rowcount
    connection.execute(SQL["forget_metric_changes"], (until,))
    return number > 0


def _forget_events(connection: sqlite3.Connection, event_type: str, now: datetime) -> bool:
    """Delete the next thousand events of a type whose time is over, of one day; False if there are none.

    A day that is not filled is left for the next time: none of its events is dropped uncounted. The category is read
    here, because another process may have moved the type a moment ago.
    """
    category, keep = connection.execute(SQL["keep_of"], (event_type,)).fetchone() or (None, None)
    if keep is None:
        return False
    until = to_text(_floor(now - timedelta(days=min(keep, LONGEST)), _DAY))
    oldest = connection.execute(SQL["old_day"], {"event_type": event_type, "until": until}).fetchone()[0]
    if oldest is None:
        return False
    day = _floor(from_text(oldest), _DAY)
    values = {"event_type": event_type, "since": to_text(day), "until": to_text(day + _DAY)}
    is_gone = connection.execute("SELECT 1 FROM analytics_gone_days WHERE day = :since", values).fetchone()
    if is_gone is None:
        if connection.execute(SQL["is_behind"], values).fetchone()[0]:
            return False
        connection.execute(SQL["note_gone"], values)
    connection.execute(SQL["note_dropped"], {"category": category, "until": until})
    number = connection.execute(SQL["forget_events"], values).rowcount
    connection.execute(SQL["forget_changes_of_day"], values)
    return number > 0


def _floor(moment: datetime, step: timedelta) -> datetime:
    """Return the beginning of the hour or day, in UTC, that a moment lies in."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour.replace(hour=0) if step == _DAY else hour
