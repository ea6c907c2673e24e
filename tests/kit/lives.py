"""Random lives of users: each begins some day, comes again on some days, pauses, and leaves."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from random import Random
from uuid import UUID

from tests.reading.happened import Event

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)
KINDS = ("api_request", "page_view", "page_view", "search_performed", "order_placed")


def random_lives(
    random: Random, people: int, since: datetime, until: datetime, zones: tuple[tzinfo, ...]
) -> list[Event]:
    """Return the events of so many users, many of them at midnight of one of the zones, or just before it."""
    events: list[Event] = []
    for number in range(people):
        user = UUID(int=1 + number)
        at = since + random.random() * (until - since)
        pause = random.choice([0.4, 1, 1, 3, 8])
        favourite = random.choice(KINDS)
        while at < until and random.random() < 0.93:
            moment = at
            if random.random() < 0.4:
                local = at.astimezone(random.choice(zones))
                edge = local.replace(hour=0, minute=0, second=0, microsecond=0).astimezone(at.tzinfo)
                moment = edge + random.choice([timedelta(0), -MICROSECOND, timedelta(minutes=7)])
            if since <= moment < until:
                kind = favourite if random.random() < 0.4 else random.choice(KINDS)
                events.append(
                    Event(
                        id=UUID(int=random.getrandbits(128), version=4),
                        timestamp=moment,
                        event_type=kind,
                        service=random.choice(["shop", "shop", "billing"]),
                        user_id=None if random.random() < 0.05 else user,
                        session_id=None,
                        data={},
                        context=None,
                    )
                )
            at += random.expovariate(1 / pause) * DAY
    return events
