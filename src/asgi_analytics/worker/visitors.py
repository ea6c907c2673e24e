"""Visitors: callers counted by a keyed hash whose key changes daily, and whose visits go on at midnight."""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asgi_analytics.encoding.caller import Caller

SILENCE = 30 * 60 * 1_000_000_000
"""A visit goes on if so many nanoseconds have passed since its last event, and not one more."""

MOST_VISITORS = 100_000
"""How many visitors a worker remembers. Beyond that it begins anew: a visit at midnight may be cut then."""

_DAY = timedelta(days=1)
_EPOCH = date(1970, 1, 1)
_DAY_NS = 86_400 * 1_000_000_000


class Visitors:
    """Names the visitors that callers are: HMAC-SHA256 of address, agent and host under the key of the day.

    At midnight the key changes. A caller whom the key of the day before names as a visitor that was seen within the
    last half hour keeps that name, until the visit ends.
    """

    def __init__(self) -> None:
        self._keys: dict[date, bytes] = {}
        # Of the last half hour of each day, and those whose visit has gone on after it: when they were last seen.
        self._seen: dict[str, int] = {}
        # Those who have begun under the key of their own day.
        self._begun: set[str] = set()
        self._newest = _EPOCH

    def missing_days(self, callers: Sequence[Caller]) -> list[date]:
        """Return the days whose keys are needed and not known."""
        days = {day for caller in callers for day in (_day_of(caller), _day_of(caller) - _DAY)}
        return sorted(days - self._keys.keys())

    def learn(self, day: date, key: bytes) -> None:
        """Take the key of a day, and forget those that are not needed any more."""
        self._keys[day] = key
        if day > self._newest:
            self._newest = day
            self._begun.clear()
            for old in [one for one in self._keys if one < day - 2 * _DAY]:
                del self._keys[old]

    def unsure(self, callers: Sequence[Caller]) -> dict[str, datetime]:
        """Return those who may go on with a visit of the day before, by that day's key, and when they called."""
        found: dict[str, datetime] = {}
        for caller in callers:
            day = _day_of(caller)
            visitor, before = self._name(caller, day), self._name(caller, day - _DAY)
            if before is not None and visitor not in self._begun and not self._goes_on(before, caller):
                found[before] = _time_of(caller)
        return found

    def decide(
        self, callers: Sequence[Caller], found: Collection[str] = ()
    ) -> tuple[list[str | None], dict[str, datetime]]:
        """Return the visitor that each caller is, or None, and whom to note for the other workers.

        ``found`` are those of `unsure` whom another worker has seen.
        """
        names: list[str | None] = []
        noted: dict[str, datetime] = {}
        for caller in callers:
            day = _day_of(caller)
            name, before = self._name(caller, day), None
            if name is not None and name not in self._begun:
                before = self._name(caller, day - _DAY)
            if before is not None and (before in found or self._goes_on(before, caller)):
                name = before
            elif name is not None:
                _add(self._begun, name)
            if name is not None and (name == before or caller.time % _DAY_NS >= _DAY_NS - SILENCE):
                if len(self._seen) >= MOST_VISITORS:
                    self._seen.clear()
                self._seen[name] = max(caller.time, self._seen.get(name, 0))
                noted[name] = _time_of(caller)
            names.append(name)
        return names, noted

    def _goes_on(self, name: str, caller: Caller) -> bool:
        """Tell whether this worker has seen a visitor within the last half hour."""
        seen = self._seen.get(name)
        return seen is not None and caller.time - seen <= SILENCE

    def _name(self, caller: Caller, day: date) -> str | None:
        key = self._keys.get(day)
        if key is None or not caller.address or not caller.is_followed:
            return None
        host = caller.host.lower().removeprefix(b"www.").partition(b":")[0]
        said = b"\0".join((caller.address.encode("utf-8", "replace"), caller.agent, host))
        return hmac.digest(key, said, "sha256")[:16].hex()


class OwnKeys:
    """Keys of this process and of those that it forks, for a sink that has none to share."""

    def __init__(self) -> None:
        self._keys: dict[date, bytes] = {}

    def key(self, day: date) -> bytes:
        """Return the random key of a day; the keys of days before the last two are forgotten."""
        if day not in self._keys:
            self._keys = {one: key for one, key in self._keys.items() if one >= day - 2 * _DAY}
            self._keys[day] = secrets.token_bytes(32)
        return self._keys[day]


def _day_of(caller: Caller) -> date:
    return _EPOCH + timedelta(days=caller.time // _DAY_NS)


def _time_of(caller: Caller) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=caller.time // 1000)


def _add(names: set[str], name: str) -> None:
    if len(names) >= MOST_VISITORS:
        names.clear()
    names.add(name)
