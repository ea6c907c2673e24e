"""Random visits: people who look at pages, pause for half an hour and a microsecond, log in, and come back."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from tests.kit.moments import moments
from tests.reading.happened import Event

MICROSECOND = timedelta(microseconds=1)
HALF_HOUR = timedelta(minutes=30)
DAY = timedelta(days=1)
PAUSES = (
    timedelta(0), timedelta(seconds=4), timedelta(seconds=50), timedelta(minutes=7), timedelta(minutes=29),
    HALF_HOUR, HALF_HOUR - MICROSECOND, HALF_HOUR + MICROSECOND, timedelta(minutes=47), timedelta(hours=5),
)  # fmt: skip
KINDS = (
    "page_view", "page_view", "page_view", "page_engaged", "page_engaged", "order_placed", "search_performed",
    "api_request", "database_query", "application_error",
)  # fmt: skip
PAGES = ("/", "/pricing", "/tasks/{id}", "/docs")


class Person:
    """Who visits: with a key of one kind or another, a device, and a place."""

    def __init__(self, random: Random, number: int) -> None:
        self.visitor = f"v{number}" if random.random() < 0.8 else None
        self.user_id = UUID(int=1 + number) if random.random() < 0.6 or self.visitor is None else None
        self.session_id = f"s{number}" if random.random() < 0.2 else None
        self.device = random.choice(
            [
                None,
                {"device_type": "desktop", "browser": "Firefox", "os": "Linux"},
                {"device_type": "mobile", "browser": "Safari", "os": "iOS"},
                {"device_type": "bot", "browser": None},
            ]
        )
        self.geo = random.choice([None, {"country": "DE", "city": "Köln"}, {"country": "US"}])


def data_of(random: Random, kind: str) -> dict[str, Any]:
    page = random.choice(PAGES)
    if kind == "page_engaged":
        return {"page": page, "visible_ms": random.choice([0, 10, 4000, 9999.5, 10_000, 60_000, "long", None])}
    if kind == "page_view":
        data: dict[str, Any] = {"page": page, "title": "A page", "channel": random.choice(["direct", "referral"])}
        if random.random() < 0.4:
            data["referrer"] = random.choice(["example.com", "search.example"])
        if random.random() < 0.3:
            data |= {"utm_source": "letter", "utm_medium": random.choice(["email", "cpc"]), "utm_campaign": "autumn"}
        return data if random.random() < 0.95 else {"title": "without a page"}
    if kind == "application_error":
        return {"error_type": "ValueError", "error_message": "bad", "fingerprint": "f1"}
    return {"endpoint": "/", "method": "GET", "status_code": 200, "fingerprint": "q1", "outcome": "ok"}


def random_visits(random: Random, number: int, since: datetime, until: datetime, people: int = 12) -> list[Event]:
    """Return about so many events of these people, in visits that often begin or end at a half hour or at midnight."""
    everybody = [Person(Random(n), n) for n in range(people)]  # the same ones in every world
    moment = moments(random, since, until)
    events: list[Event] = []
    while len(events) < number:
        person = random.choice(everybody)
        at = moment()
        if random.random() < 0.4:
            edge = at.replace(minute=random.choice([0, 30]), second=0, microsecond=0)
            edge = edge.replace(hour=0) if random.random() < 0.4 else edge
            at = edge + random.choice([timedelta(0), -MICROSECOND, -timedelta(minutes=5)])
        is_logged_in = person.visitor is None or random.random() < 0.3
        session_id = person.session_id if random.random() < 0.8 else None
        service = random.choice(["shop", "shop", "billing"])
        for _ in range(random.choice([1, 1, 2, 3, 5, 8])):
            if not since <= at < until:
                break
            is_logged_in = is_logged_in or random.random() < 0.1
            context: dict[str, Any] = {"environment": random.choice(["production", "staging"])}
            if person.visitor is not None:
                context["visitor"] = person.visitor
            if person.device is not None and random.random() < 0.8:
                context["device"] = person.device
            if person.geo is not None and random.random() < 0.8:
                context["geo"] = person.geo
            kind = random.choice(KINDS)
            events.append(
                Event(
                    id=UUID(int=random.getrandbits(128), version=4),
                    timestamp=at,
                    event_type=kind,
                    service=service,
                    user_id=person.user_id if is_logged_in else None,
                    session_id=session_id,
                    data=data_of(random, kind),
                    context=context if random.random() < 0.95 else None,
                )
            )
            at += random.choice(PAUSES)
    return events
