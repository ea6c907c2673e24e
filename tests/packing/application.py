"""The application that the tests pack: it shows what it finds inside its pack, stores an event, or runs a command."""

import asyncio
import json
import sys
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import asgi_analytics
from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, errors, events
from asgi_analytics.sinks import sink_from_url


async def item(request: Request) -> PlainTextResponse:
    return PlainTextResponse("an item")


async def ask(client: AnalyticsClient) -> None:
    shop = AnalyticsMiddleware(Starlette(routes=[Mount("/shop", routes=[Route("/items/{id}", item)])]), client=client)

    async def receive() -> dict[str, str]:
        return {"type": "http.request"}

    async def send(message: object) -> None:
        pass

    scope = {
        "type": "http", "method": "GET", "path": "/shop/items/7", "root_path": "", "query_string": b"", "headers": [],
        "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await shop(scope, receive, send)


def show() -> None:
    client = AnalyticsClient.from_url("memory://", service="packed")
    asyncio.run(ask(client))
    assert client.close(5)
    try:
        sink_from_url("nope://host")
    except errors.ConfigError as error:
        schemes = str(error)
    found = {
        "file": asgi_analytics.__file__,
        "endpoint": client.sink.events[0].data["endpoint"],
        "frameworks": sorted(one.__name__ for one in AnalyticsMiddleware.known_frameworks),
        "schemes": schemes,
    }
    print(json.dumps(found))


def store(url: str) -> None:
    client = AnalyticsClient.from_url(url, service="packed")
    assert client.track(events.TaskCreated(task_id=uuid4(), user_id=uuid4(), command="build"))
    assert client.close(20), client.stats()
    print(json.dumps({"stored": client.stats().stored}))


def main() -> int:
    match sys.argv[1:]:
        case ["show"]:
            show()
        case ["store", url]:
            store(url)
        case ["migrate", *arguments]:
            from asgi_analytics.cli.migrate import main as migrate

            return migrate(arguments)
        case ["ingest", *arguments]:
            from asgi_analytics.cli.ingest import main as ingest

            return ingest(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
