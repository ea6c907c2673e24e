"""A small shop whose every request, query, error and sale becomes a row.

shows:   AnalyticsMiddleware, instrument_asyncpg, domain events, set_user, a background task, a deliberate bug
needs:   a database with the analytics tables (analytics-migrate all), named by DATABASE_URL: PostgreSQL or sqlite:///
install: pip install asgi-analytics starlette uvicorn
run:     uvicorn --app-dir examples shop:app        (or `tox -e demo` at the top, which brings database and customers)
see:     SELECT * FROM analytics_api_latency_hourly
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict
from uuid import UUID, uuid4, uuid5

import asyncpg
from shop_on_sqlite import SqlitePool
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, Event, events, instrument_asyncpg, set_user

SHOP = UUID("4c8d1a52-7f0e-5a8e-9c55-0f5a6f3c9b11")
DATABASE_URL = os.environ["DATABASE_URL"]

client = AnalyticsClient.from_url(
    DATABASE_URL, service="shop", environment="demo", hash_key=os.environ.get("ANALYTICS_HASH_KEY"), flush_interval=1.0
)
instrument_asyncpg(client)


class OrderPlaced(Event):
    """Somebody bought something: an event of the shop's own."""

    order_id: UUID
    user_id: UUID
    product: str
    amount: float


class State(TypedDict):
    pool: asyncpg.Pool[Any] | SqlitePool


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    is_sqlite = DATABASE_URL.startswith("sqlite:")
    async with (
        SqlitePool(DATABASE_URL, client)
        if is_sqlite
        else asyncpg.create_pool(DATABASE_URL, min_size=1, max_size=5) as pool
    ):
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS shop_products (id int PRIMARY KEY, name text, price numeric, stock int)"
        )
        await pool.execute(
            "CREATE TABLE IF NOT EXISTS shop_orders (id text PRIMARY KEY, user_id text, product_id int, placed_at text)"
        )
        for i, word in enumerate(["red", "blue", "green", "brass", "paper"]):
            await pool.execute(
                "INSERT INTO shop_products VALUES ($1, $2, $3, 40)"
                " ON CONFLICT (id) DO UPDATE SET stock = excluded.stock",
                i, f"{word} lamp", 10 + i * 5,
            )  # fmt: skip
        yield {"pool": pool}


def customer(request: Request) -> UUID:
    name = request.headers.get("x-customer")
    if name is None:
        raise HTTPException(401, "log in first")
    user_id = uuid5(SHOP, name)
    set_user(user_id)
    return user_id


async def products(request: Request) -> Response:
    rows = await request.state.pool.fetch("SELECT id, name, price, stock FROM shop_products ORDER BY id")
    return JSONResponse([{**row, "price": float(row["price"])} for row in rows])


async def product(request: Request) -> Response:
    row = await request.state.pool.fetchrow(
        "SELECT id, name, price, stock FROM shop_products WHERE id = $1", request.path_params["product_id"]
    )
    if row is None:
        raise HTTPException(404, "no such product")
    return JSONResponse({**row, "price": float(row["price"])})


async def log_in(request: Request) -> Response:
    form = await request.json()
    user_id = uuid5(SHOP, form["name"])
    success = form["password"] == "open sesame"
    client.track(
        events.AuthLoginAttempt(
            user_id=user_id if success else None,
            email=f"{form['name']}@example.com",
            success=success,
            error=None if success else "wrong password",
        )
    )
    if not success:
        raise HTTPException(403, "wrong password")
    client.track(events.AuthTokenRefresh(user_id=user_id, success=True))
    return JSONResponse({"hello": form["name"]})


async def buy(request: Request) -> Response:
    user_id = customer(request)
    product_id = request.path_params["product_id"]
    order_id = uuid4()
    async with request.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(
            "UPDATE shop_products SET stock = stock - 1 WHERE id = $1 AND stock > 0 RETURNING name, price", product_id
        )
        if row is None:
            raise HTTPException(409, "sold out")
        await connection.execute(
            "INSERT INTO shop_orders VALUES ($1, $2, $3, CURRENT_TIMESTAMP)", str(order_id), str(user_id), product_id
        )
    if row["name"] == "brass lamp" and random.random() < 0.3:
        raise RuntimeError(f"the brass lamp of order {order_id} would not light")  # the bug that the errors view shows
    client.track(OrderPlaced(order_id=order_id, user_id=user_id, product=row["name"], amount=float(row["price"])))
    client.metrics.counter("products_sold", product=row["name"])
    client.metrics.histogram("price", float(row["price"]))
    client.track(events.IntegrationUsed(integration_id=SHOP, user_id=user_id, provider="paypal", action="charge"))
    return JSONResponse({"order": str(order_id)}, background=BackgroundTask(deliver, order_id, user_id, row["name"]))


async def deliver(order_id: UUID, user_id: UUID, name: str) -> None:
    """Pack the parcel and put it into a locker: a task of the catalogue, done after the answer."""
    client.track(events.TaskCreated(task_id=order_id, user_id=user_id, command=f"deliver {name}"))
    began = time.perf_counter()
    await asyncio.sleep(random.uniform(0.005, 0.05))
    took = (time.perf_counter() - began) * 1000
    if random.random() < 0.1:
        client.track(events.TaskFailed(task_id=order_id, user_id=user_id, duration_ms=took, error="no locker is free"))
        return
    locker = uuid5(SHOP, f"locker {random.randrange(4)}")
    client.track(events.CocoonConnected(cocoon_id=locker, user_id=user_id))
    client.track(events.TaskCompleted(task_id=order_id, user_id=user_id, duration_ms=took, exit_code=0))
    client.track(events.CocoonDisconnected(cocoon_id=locker, user_id=user_id, duration_seconds=took / 1000))


async def orders(request: Request) -> Response:
    user_id = customer(request)
    pool = request.state.pool
    rows = await pool.fetch("SELECT id, product_id FROM shop_orders WHERE user_id = $1 LIMIT 10", str(user_id))
    # One query an order: the classic N+1, which db_repeats of the request shows.
    names = [await pool.fetchval("SELECT name FROM shop_products WHERE id = $1", row["product_id"]) for row in rows]
    return JSONResponse([{"id": row["id"], "product": name} for row, name in zip(rows, names, strict=True)])


async def figures(request: Request) -> Response:
    return JSONResponse(client.stats().as_dict())


app = Starlette(
    routes=[
        Route("/products", products),
        Route("/products/{product_id:int}", product),
        Route("/products/{product_id:int}/buy", buy, methods=["POST"]),
        Route("/login", log_in, methods=["POST"]),
        Route("/orders", orders),
        Route("/figures", figures),
    ],
    lifespan=lifespan,
    middleware=[Middleware(AnalyticsMiddleware, client=client, exclude=["/figures"])],
)
