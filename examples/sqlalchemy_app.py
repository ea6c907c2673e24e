"""Notes over SQLAlchemy: each statement it sends is an event, and each request knows how many there were.

shows:   instrument_asyncpg below SQLAlchemy's asyncpg dialect, slow_ms and sample_rate, an N+1 that db_repeats finds
needs:   PostgreSQL or TimescaleDB with the analytics tables (analytics-migrate all), DATABASE_URL
install: pip install asgi-analytics starlette uvicorn 'sqlalchemy[asyncio]'
run:     uvicorn --app-dir examples sqlalchemy_app:app
         curl localhost:8000/authors; curl localhost:8000/authors/1; curl localhost:8000/broken
see:     SELECT data ->> 'statement', data ->> 'duration_ms', data ->> 'rows_affected' FROM analytics_events
         WHERE event_type = 'database_query';
         SELECT data ->> 'endpoint', data ->> 'db_queries', data ->> 'db_repeats' FROM analytics_events
         WHERE event_type = 'api_request'
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import ForeignKey, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, instrument_asyncpg

DATABASE_URL = os.environ["DATABASE_URL"]

client = AnalyticsClient.from_url(DATABASE_URL, service="notes", flush_interval=1.0)
# In production: every query that fails or takes 50 ms, and a tenth of the others. The figures of the requests, and so
# the N+1 below, count all of them whatever the share is.
instrument_asyncpg(client, slow_ms=50, sample_rate=float(os.environ.get("SAMPLE_RATE", "1.0")))

engine = create_async_engine(DATABASE_URL.replace("postgresql://", "postgresql+asyncpg://"))
session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "example_authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Note(Base):
    __tablename__ = "example_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("example_authors.id"))
    text: Mapped[str]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with session.begin() as db:
        db.add_all([Author(id=number, name=name) for number, name in enumerate(("Ada", "Grace", "Mary"), 1)])
    async with session.begin() as db:
        db.add_all([Note(author_id=number % 3 + 1, text=f"note {number}") for number in range(9)])
    yield
    await engine.dispose()


async def authors(request: Request) -> Response:
    """Ask for the notes of each author one by one: the N+1 that ``db_repeats`` shows."""
    async with session() as db:
        found = (await db.scalars(select(Author).order_by(Author.id))).all()
        notes = {
            author.name: len((await db.scalars(select(Note).where(Note.author_id == author.id))).all())
            for author in found
        }
    return JSONResponse(notes)


async def author(request: Request) -> Response:
    async with session() as db:
        found = await db.get(Author, int(request.path_params["author_id"]))
        if found is None:
            raise HTTPException(404)
        return JSONResponse({"name": found.name})


async def broken(request: Request) -> Response:
    async with session() as db:
        await db.execute(text("SELECT * FROM example_poems"))
    return JSONResponse({})


app = Starlette(
    routes=[Route("/authors", authors), Route("/authors/{author_id}", author), Route("/broken", broken)],
    middleware=[Middleware(AnalyticsMiddleware, client=client)],
    lifespan=lifespan,
)
