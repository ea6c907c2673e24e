"""A month in the life of a shop, made in seconds, so that every page of the dashboard has something to show.

shows:   what the rows of captured requests, queries, errors, page views and tracked events look like
needs:   a database with the analytics tables (analytics-migrate all), named by DATABASE_URL
install: pip install asgi-analytics
run:     python examples/history.py --days 30
see:     analytics-api, then http://127.0.0.1:8093/ui/
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from asgi_analytics.admin.refresh import refresh_views
from asgi_analytics.sinks.sqlite import SqliteSink

METRIC_COLUMNS = (
    "id", "timestamp", "name", "metric_type", "value", "unit", "service", "tags", "count", "sum", "min", "max", "last",
    "bins", "counts",
)  # fmt: skip
COLUMNS = ("id", "timestamp", "event_type", "service", "user_id", "session_id", "data", "context")
FUNNEL = [
    {"event_type": "product_viewed"}, {"event_type": "cart_filled"}, {"event_type": "order_placed", "name": "bought"},
]  # fmt: skip
PAGES = {
    "/": 5, "/products": 6, "/products/{product_id}": 8, "/pricing": 2, "/about": 1, "/blog/{slug}": 3, "/help": 1,
}  # fmt: skip
SOURCES = [
    (5, {"channel": "direct"}),
    (5, {"channel": "organic_search", "referrer": "google.com"}),
    (1, {"channel": "organic_search", "referrer": "duckduckgo.com"}),
    (2, {"channel": "referral", "referrer": "news.ycombinator.com"}),
    (2, {"channel": "email", "utm_source": "newsletter", "utm_medium": "email", "utm_campaign": "november"}),
    (1, {"channel": "organic_social", "referrer": "reddit.com"}),
    (1, {"channel": "paid_search", "referrer": "google.com", "utm_source": "google", "utm_medium": "cpc",
         "utm_campaign": "lamps"}),
    (1, {"channel": "ai_assistant", "referrer": "chatgpt.com"}),
]  # fmt: skip
DEVICES = [
    (6, ("desktop", "Chrome", "Windows")), (2, ("desktop", "Firefox", "Linux")),
    (3, ("desktop", "Safari", "Mac OS X")),
    (5, ("mobile", "Mobile Safari", "iOS")), (6, ("mobile", "Chrome Mobile", "Android")),
    (1, ("tablet", "Safari", "iOS")),
]  # fmt: skip
PLACES = [
    (6, ("DE", "Berlin")), (4, ("US", "New York")), (3, ("GB", "London")), (2, ("FR", "Lyon")), (2, ("IN", "Pune")),
    (1, ("JP", "Osaka")), (1, ("BR", "Recife")),
]  # fmt: skip
PRODUCTS = ("red lamp", "blue lamp", "green lamp", "brass lamp", "paper lamp")
PLANS = ("free", "free", "free", "pro", "team")
STATEMENTS = {
    "products": ("SELECT", "SELECT id, name, price FROM shop_products ORDER BY id LIMIT $1", 2.0),
    "product": ("SELECT", "SELECT name, price FROM shop_products WHERE id = $1", 0.7),
    "orders": ("SELECT", "SELECT id, product_id FROM shop_orders WHERE user_id = $1 LIMIT $2", 6.0),
    "buy": ("INSERT", "INSERT INTO shop_orders (id, user_id, product_id, placed_at) VALUES ($1, $2, $3, now())", 3.0),
    "stock": ("UPDATE", "UPDATE shop_products SET stock = stock - $1 WHERE id = $2 AND stock > $1 RETURNING name", 4.0),
    "report": ("SELECT", "SELECT date_trunc($1, placed_at), sum(price) FROM shop_orders JOIN shop_products USING (id)"
               " GROUP BY 1", 180.0),
}  # fmt: skip
ENDPOINTS = {
    "/products": ("GET", 18.0, ("products",)),
    "/products/{product_id}": ("GET", 9.0, ("product",)),
    "/products/{product_id}/buy": ("POST", 60.0, ("stock", "buy")),
    "/orders": ("GET", 45.0, ("orders", "product", "product", "product", "product", "product")),
    "/login": ("POST", 120.0, ()),
    "/search": ("GET", 70.0, ("products",)),
    "/reports/sales": ("GET", 260.0, ("report",)),
}
BUGS = [
    ("RuntimeError", "the brass lamp would not light", "/products/{product_id}/buy", "buy"),
    ("KeyError", "'price'", "/search", "rank"),
    ("TimeoutError", "the payment provider did not answer within 5 s", "/products/{product_id}/buy", "charge"),
]
RELEASES = ((0.2, "1.4.0"), (0.55, "1.5.0"), (0.62, "1.5.1"), (0.9, "1.6.0"))
"""When each was deployed, as a fraction of the time. The second one is slow, and the third mends it."""
BROKEN = (0.55, 0.62)


class Row(NamedTuple):
    """One row of ``analytics_events``."""

    id: UUID
    timestamp: datetime
    event_type: str
    service: str
    user_id: UUID | None
    session_id: str | None
    data: str
    context: str


class Person:
    """Who visits the shop, more or less often, with a device and from a place."""

    def __init__(self, random: Random, number: int) -> None:
        self.user_id = UUID(int=random.getrandbits(128), version=4) if number % 5 < 2 else None
        self.visitor = f"{random.getrandbits(128):032x}"
        device_type, browser, system = weighted(random, DEVICES)
        country, city = weighted(random, PLACES)
        self.device = {"device_type": device_type, "browser": browser, "os": system}
        self.geo = {"country": country, "city": city}
        self.source = weighted(random, SOURCES)
        self.plan = random.choice(PLANS)
        self.began = random.random() ** 1.3
        self.gap = random.lognormvariate(1.6, 0.9) if self.user_id else random.lognormvariate(2.6, 0.7)


class History:
    """The events of some days up to a time. ``scale`` is how many people there are, 1.0 for some 900."""

    def __init__(self, until: datetime, days: int = 30, *, scale: float = 1.0, seed: int = 7) -> None:
        self.random = Random(seed)
        self.until = until
        self.since = until - timedelta(days=days)
        self.days = days
        self.requests: Counter[str] = Counter()
        self.people = [Person(self.random, number) for number in range(max(10, int(900 * scale)))]

    def rows(self) -> Iterator[Row]:
        """Return all rows, person by person."""
        for fraction, version in RELEASES:
            at = self.since + fraction * (self.until - self.since)
            yield self._row(at, "deployed", None, {"version": version}, {"environment": "production"})
        for person in self.people:
            day = person.began * self.days
            while day < self.days and self.random.random() < (0.95 if person.user_id else 0.6):
                at = self._at_daytime(self.since + timedelta(days=day))
                if at < self.until:
                    yield from self._visit(person, at)
                day += self.random.expovariate(1 / person.gap) + 0.1

    def _at_daytime(self, at: datetime) -> datetime:
        hour = min(max(self.random.gauss(14, 4.5), 0), 23.9)
        if at.weekday() >= 5 and self.random.random() < 0.45:  # fewer come at weekends
            at += timedelta(days=2)
        return at.replace(hour=int(hour), minute=self.random.randrange(60), second=self.random.randrange(60))

    def _visit(self, person: Person, at: datetime) -> Iterator[Row]:
        random = self.random
        context: dict[str, Any] = {
            "environment": "production" if random.random() < 0.97 else "staging",
            "visitor": person.visitor,
            "device": person.device,
            "geo": person.geo,
            "trace_id": f"{random.getrandbits(128):032x}",
        }
        user = person.user_id

        def later(low: float, high: float) -> datetime:
            nonlocal at
            at = min(at + timedelta(seconds=random.uniform(low, high)), self.until)
            return at

        def row(kind: str, data: dict[str, Any]) -> Row:
            return self._row(at, kind, user, data, context)

        def request(endpoint: str) -> Iterator[Row]:
            yield from self._request(later(0.05, 0.4), endpoint, user, context)

        page = random.choices(list(PAGES), list(PAGES.values()))[0]
        yield row("page_view", {"page": page, **person.source})
        if user is not None and random.random() < 0.5:
            yield from request("/login")
            success = random.random() < 0.92
            yield row("auth_login_attempt", {"success": success, "method": "password"})
        for _ in range(random.choice([0, 0, 1, 2, 3, 4, 6])):
            yield row("page_engaged", {"page": page, "visible_ms": round(random.lognormvariate(9.3, 0.9), 1)})
            later(4, 140)
            page = random.choices(list(PAGES), list(PAGES.values()))[0]
            yield row("page_view", {"page": page, "channel": "direct"})
            if page.startswith("/products"):
                yield from request(page)
                product = random.choice(PRODUCTS)
                yield row("product_viewed", {"product": product, "plan": person.plan})
                if random.random() < (0.42 if user else 0.15):
                    later(5, 60)
                    yield row("cart_filled", {"product": product, "plan": person.plan})
                    if random.random() < (0.6 if person.plan != "free" else 0.42):
                        later(20, 300)
                        yield from request("/products/{product_id}/buy")
                        amount = 10 + PRODUCTS.index(product) * 5
                        yield row("order_placed", {"product": product, "amount": amount, "plan": person.plan})
                        yield from self._delivery(at, user, context)
            elif random.random() < 0.3:
                yield from request("/search")
                yield row("search_performed", {"query": product_name(random), "result_count": random.randrange(9)})
        if user is not None and random.random() < 0.5:
            yield from request("/orders")
        if user is not None and person.plan == "team" and random.random() < 0.4:
            yield from request("/reports/sales")

    def _request(self, at: datetime, endpoint: str, user: UUID | None, context: dict[str, Any]) -> Iterator[Row]:
        random = self.random
        method, usual, queries = ENDPOINTS[endpoint]
        passed = (at - self.since) / (self.until - self.since)
        is_broken = BROKEN[0] <= passed < BROKEN[1]
        slower = 2.2 if is_broken else 1.0
        request_id = f"{random.getrandbits(64):016x}"
        context = {**context, "request_id": request_id}
        spent = 0.0
        for number, name in enumerate(queries):
            kind, statement, query_usual = STATEMENTS[name]
            took = query_usual * slower * random.lognormvariate(0, 0.6)
            spent += took
            yield self._row(
                at + timedelta(milliseconds=number), "database_query", user,
                {"query_type": kind, "duration_ms": round(took, 3), "outcome": "ok", "table": "shop_products",
                 "statement": statement, "fingerprint": f"{name}-{len(statement):04x}", "endpoint": endpoint},
                context,
            )  # fmt: skip
        status = 200
        bugs = [one for one in BUGS if one[2] == endpoint]
        self.requests[endpoint] += 1
        # By number, not by chance: there are errors to look at whenever it is made, and for however few people.
        if bugs and self.requests[endpoint] % (8 if is_broken else 40) == 0:
            status = 500
            yield self._error(at, random.choice(bugs), user, context)
        elif random.random() < 0.03:
            status = random.choice([400, 401, 404, 409])
        took = (usual * slower * random.lognormvariate(0, 0.5)) + spent
        repeats = max((queries.count(name) for name in queries), default=0)
        yield self._row(
            at, "api_request", user,
            {"method": method, "endpoint": endpoint, "status_code": status, "duration_ms": round(took, 3),
             "outcome": "error" if status == 500 else "ok", "db_queries": len(queries),
             "db_duration_ms": round(spent, 3), "db_repeats": repeats, "response_bytes": random.randrange(200, 9000)},
            context,
        )  # fmt: skip

    def _error(self, at: datetime, bug: tuple[str, str, str, str], user: UUID | None, context: dict[str, Any]) -> Row:
        kind, message, endpoint, function = bug
        stack = [
            {"file": "shop/orders.py", "line": 41 + len(kind), "function": function},
            {"file": "shop/routes.py", "line": 118, "function": "endpoint"},
            {"file": "starlette/routing.py", "line": 288, "function": "handle"},
        ]
        data = {
            "error_type": kind, "error_message": message, "endpoint": endpoint, "handled": False,
            "fingerprint": f"{abs(hash_of(kind + message)):016x}", "stack": stack,
        }  # fmt: skip
        return self._row(at, "application_error", user, data, context)

    def _delivery(self, at: datetime, user: UUID | None, context: dict[str, Any]) -> Iterator[Row]:
        task = {"task_id": str(self._id())}
        yield self._row(at, "task_created", user, {**task, "command": "deliver"}, context)
        took = self.random.lognormvariate(10, 0.6)
        at = min(at + timedelta(milliseconds=took), self.until)
        kind = "task_completed" if self.random.random() < 0.94 else "task_failed"
        yield self._row(at, kind, user, {**task, "duration_ms": round(took, 1)}, context)

    def _id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def _row(self, at: datetime, kind: str, user: UUID | None, data: dict[str, Any], context: dict[str, Any]) -> Row:
        return Row(self._id(), at, kind, "shop", user, None, json.dumps(data), json.dumps(context))


def weighted(random: Random, choices: list[tuple[int, Any]]) -> Any:
    """Return one of some values, each as often as its weight says."""
    return random.choices([value for _, value in choices], [weight for weight, _ in choices])[0]


def product_name(random: Random) -> str:
    return random.choice(PRODUCTS).split()[0]


def hash_of(text: str) -> int:
    """Return a number for a text, the same in every process."""
    return math.prod(map(ord, text)) % (2**63)


def metrics_of(rows: list[Row]) -> Iterator[tuple[Any, ...]]:
    """Return what the shop would have recorded as metrics: a counter of orders, and a timer of deliveries."""
    measured: dict[tuple[datetime, str, str], list[float]] = defaultdict(list)
    for row in rows:
        hour = row.timestamp.replace(minute=0, second=0, microsecond=0)
        data = json.loads(row.data)
        if row.event_type == "order_placed":
            measured[hour, "orders", data["plan"]].append(1)
        elif row.event_type in ("task_completed", "task_failed"):
            measured[hour, "delivery", row.event_type].append(data["duration_ms"])
    for (hour, name, tag), values in sorted(measured.items()):
        # The bins of a histogram: see the comment at analytics_metrics.
        bins = Counter(20_000 + math.ceil(math.log(value) / math.log(1.04)) for value in values)
        total, kind, tags = sum(values), "counter", {"plan": tag}
        if name == "delivery":
            kind, tags = "timer", {"outcome": tag.removeprefix("task_")}
        yield (
            uuid4(), hour, name, kind, total if kind == "counter" else total / len(values),
            None if kind == "counter" else "ms", "shop", json.dumps(tags), len(values), total, min(values), max(values),
            values[-1], *((None, None) if kind == "counter" else zip(*sorted(bins.items()), strict=True)),
        )  # fmt: skip


async def fill(url: str, days: int = 30, *, scale: float = 1.0, until: datetime | None = None) -> int:
    """Write the history into a database, bring the aggregates up to date, and return how many events there are."""
    rows = list(History(until or datetime.now(UTC), days, scale=scale).rows())
    if url.startswith("sqlite:"):
        await fill_sqlite(url, rows)
        return len(rows)
    connection = await asyncpg.connect(url)
    try:
        await connection.copy_records_to_table("analytics_events", records=rows, columns=COLUMNS)
        await connection.execute(
            "INSERT INTO analytics_funnels (name, description, steps, conversion_window)"
            " VALUES ('checkout', 'From a product to an order', $1, '7 days') ON CONFLICT (name) DO NOTHING",
            json.dumps(FUNNEL),
        )
        await connection.copy_records_to_table("analytics_metrics", records=metrics_of(rows), columns=METRIC_COLUMNS)
        # The workers' hourly call, which fills the aggregates of metrics.
        await connection.execute("SELECT analytics_upkeep()")
    finally:
        await connection.close()
    await refresh_views(url)
    return len(rows)


async def fill_sqlite(url: str, rows: list[Row]) -> None:
    """Write the history into a file, as a worker would: line by line, in batches."""
    lines = [
        f'{{"event_id":"{row.id}","timestamp":"{row.timestamp.isoformat()}","event_type":"{row.event_type}",'
        f'"service":"{row.service}","user_id":{json.dumps(row.user_id and str(row.user_id))},"session_id":null,'
        f'"data":{row.data},"context":{row.context}}}'.encode()
        for row in rows
    ]
    for values in metrics_of(rows):
        row = dict(zip(METRIC_COLUMNS, values, strict=True))
        event_id, at = str(row.pop("id")), row.pop("timestamp").isoformat()
        data = {name: value for name, value in row.items() if value is not None} | {"tags": json.loads(row["tags"])}
        members = {"event_id": event_id, "timestamp": at, "event_type": "$metric", "service": "shop", "data": data}
        lines.append(json.dumps(members).encode())
    sink = SqliteSink(url)
    for start in range(0, len(lines), 2_000):
        await sink.write(lines[start : start + 2_000])
    await sink.aclose()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(
            "INSERT INTO funnels (id, name, description, steps, conversion_window)"
            " VALUES (?, 'checkout', 'From a product to an order', ?, 604800) ON CONFLICT (name) DO NOTHING",
            (str(uuid4()), json.dumps(FUNNEL)),
        )
    await refresh_views(url)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a month of a shop's life into the database of DATABASE_URL.")
    parser.add_argument("--days", type=int, default=30, help="how many days (default: 30)")
    parser.add_argument("--scale", type=float, default=1.0, help="how many people, 1 for some 900 (default: 1)")
    options = parser.parse_args()
    print(asyncio.run(fill(os.environ["DATABASE_URL"], options.days, scale=options.scale)), "events")


if __name__ == "__main__":
    main()
