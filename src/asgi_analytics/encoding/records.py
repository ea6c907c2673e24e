"""Captured events as records, and the lines that are made of records: an id, a time, a service, somebody, a place.

The application makes a record: a tuple of what differs from one event to the next. The worker makes the line of it,
which is what an `EventEncoder` makes of the event, at a third of the cost; tests compare the two. Every record begins
with the number of its writer, its weight in bytes, its nanoseconds, and the two summands of its id, which is minted
where the record is made, as `events.identity.mint` does. It holds nothing that the garbage collector has to look into.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from asgi_analytics.encoding.text import clean_text
from asgi_analytics.encoding.users import user_uuid

RECORD_BYTES = 600
"""What a record counts for in the queue: about what its line will have, and more than the record itself."""

LONGEST_NAME = 200
"""So many characters of an id of a user, a session or a request fit into a record; with more the event is encoded."""

COUNTER_TOP = 1 << 48
"""Set in the counter of an id, so that `hex` writes all of its digits."""

_MICROSECONDS = [f"{number:03d}" for number in range(1000)]
"""Three digits: of milliseconds, and of microseconds."""


def fits(user_id: object) -> bool:
    """Tell whether the id of a user is short enough for a record: a UUID, or what has so few characters or digits."""
    if isinstance(user_id, str):
        return len(user_id) <= LONGEST_NAME
    return not isinstance(user_id, int) or user_id.bit_length() <= 3 * LONGEST_NAME


def counter_digits(number: int) -> str:
    """Return the last twelve digits of an id."""
    return hex(number | COUNTER_TOP)[3:]


_BASE_TOP = 1 << 128
_NOBODY = ("null", "")


def json_text(value: object) -> str:
    """Return the JSON of a value."""
    return msgspec.json.encode(clean_text(value) if isinstance(value, str) else value).decode()


@lru_cache(maxsize=4096, typed=True)
def user_json(user_id: object) -> tuple[str, str]:
    """Return the JSON of the column ``user_id``, and of the member of the context that holds the original."""
    user, key = user_uuid(user_id)
    return f'"{user}"', "" if key is None else f',"user_key":{json_text(key)}'


@lru_cache(maxsize=4096)
def endpoint_json(endpoint: str) -> str:
    """Return the JSON of a template, of which there are few."""
    return json_text(endpoint)


class Lines:
    """Writes the lines of one service's events of one type."""

    event_type: ClassVar[str]
    writer: int
    """What the records begin with; set where the queue gets to know `line`."""

    def __init__(self, service: str, hostname: str | None, environment: str | None) -> None:
        self.service = f'Z","service":{json_text(service)},"user_id":'
        self.nobody = f'{self.service}null,"session_id":null,'
        self.place = f'","hostname":{json_text(hostname)},"environment":{json_text(environment)}}}}}'
        # What is the same for a millisecond, and for a second: for the worker alone.
        self._millisecond: tuple[int, int, str, str] = (-1, -1, "", "")
        self._second: tuple[int, str] = (-1, "")

    def start(self, now: int, base: int, number: int) -> str:
        """Return how a line begins: its id, its type and its time, which is ``now`` in nanoseconds."""
        now //= 1000
        millisecond, of_base, id_start, time_start = self._millisecond
        if millisecond != now // 1000 or of_base != base:
            id_start, time_start = self.starts(now // 1000, base)
        return f"{id_start}{hex(number | COUNTER_TOP)[3:]}{time_start}{_MICROSECONDS[now % 1000]}"

    def starts(self, millisecond: int, base: int) -> tuple[str, str]:
        """Return how the lines of a millisecond begin: what stands before the counter, and before the microseconds."""
        second, instant = self._second
        if second != millisecond // 1000:
            second = millisecond // 1000
            instant = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._second = (second, instant)
        digits = hex(base | _BASE_TOP)[3:]  # of the UUID; its own str() costs ten times as much
        id_start = f'{{"event_id":"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-'
        time_start = f'","event_type":"{self.event_type}","timestamp":"{instant}{_MICROSECONDS[millisecond % 1000]}'
        self._millisecond = (millisecond, base, id_start, time_start)
        return id_start, time_start

    def line(self, record: tuple[Any, ...]) -> bytes:
        """Return the JSON of a record."""
        raise NotImplementedError  # each type of event has lines of its own

    def somebody(self, user_id: object, session_id: str | None) -> tuple[str, str]:
        """Return what takes the place of ``nobody`` and ``place`` where a user or a session is known."""
        user, user_key = _NOBODY if user_id is None else user_json(user_id)
        session = "null" if session_id is None else json_text(session_id)
        return f'{self.service}{user},"session_id":{session},', f"{self.place[:-2]}{user_key}}}}}"
