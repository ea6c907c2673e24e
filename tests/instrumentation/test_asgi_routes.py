"""Templates: mounts, nested and included routers, hosts, files, redirects, and routes that come later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.frameworks.starlette_routes import RouteTable
from asgi_analytics.testing import CapturedEvents
from tests.instrumentation.asgi_app import App, http_scope, run

Ask = Callable[..., Any]


async def page(request: Request) -> Response:
    return PlainTextResponse("page")


async def other(request: Request) -> Response:
    return PlainTextResponse("other")


@pytest.fixture
def endpoint_of(analytics: CapturedEvents) -> Ask:
    """Give ``await endpoint_of(app, path)``: the endpoint of a request, which is the same each time it is made."""

    async def ask(app: App, path: str, method: str = "GET", **more: Any) -> str | None:
        if not isinstance(app, AnalyticsMiddleware):
            app = AnalyticsMiddleware(app, client=analytics.client)
        found: list[str | None] = []
        for _ in range(3):
            analytics.clear()
            await run(app, http_scope(path, method, **more))
            [event] = analytics.of("api_request")
            found.append(event.data["endpoint"])
        assert len(set(found)) == 1
        return found[0]

    return ask


async def test_mounts_and_their_parameters(endpoint_of: Ask) -> None:
    inner = Starlette(routes=[Route("/", page), Route("/a/{b:int}", page)])
    app = Starlette(routes=[Mount("/t/{tenant}", routes=[Mount("/v1", inner)]), Route("/{rest:path}", other)])

    assert await endpoint_of(app, "/t/acme/v1/a/5") == "/t/{tenant}/v1/a/{b}"
    assert await endpoint_of(app, "/t/acme/v1/") == "/t/{tenant}/v1/"
    assert await endpoint_of(app, "/t/acme/v1/a/x") is None
    assert await endpoint_of(app, "/t/acme/v1") is None
    assert await endpoint_of(app, "/any/thing") == "/{rest}"


async def test_one_application_mounted_twice_has_two_templates(endpoint_of: Ask) -> None:
    inner = Starlette(routes=[Route("/a/{b}", page)])
    app = Starlette(routes=[Mount("/x", inner), Mount("/y/{z}", inner), Mount("/y/w/deep", inner)])

    assert await endpoint_of(app, "/x/a/1") == "/x/a/{b}"
    assert await endpoint_of(app, "/y/1/a/1") == "/y/{z}/a/{b}"


async def test_one_handler_on_several_routes(endpoint_of: Ask) -> None:
    app = Starlette(routes=[Route("/a/{x}", page), Route("/b/{x}", page), Mount("/m", routes=[Route("/a/{x}", page)])])

    assert await endpoint_of(app, "/a/1") == "/a/{x}"
    assert await endpoint_of(app, "/b/1") == "/b/{x}"
    assert await endpoint_of(app, "/m/a/1") == "/m/a/{x}"


async def test_hosts_have_paths_only(endpoint_of: Ask) -> None:
    app = Starlette(
        routes=[
            Host("{shop}.example.org", Router([Route("/items/{item}", page)])),
            Host("files.example.com", PlainTextResponse("opaque")),
            Route("/items/{thing}", other),
        ]
    )

    assert await endpoint_of(app, "/items/1", headers=[(b"host", b"a.example.org")]) == "/items/{item}"
    assert await endpoint_of(app, "/items/1") == "/items/{thing}"
    assert await endpoint_of(app, "/nowhere", headers=[(b"host", b"a.example.org")]) is None


async def test_files_have_the_template_of_their_mount(endpoint_of: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    app = Starlette(
        routes=[Mount("/static", StaticFiles(directory=tmp_path)), Mount("/", StaticFiles(directory=tmp_path))]
    )

    assert await endpoint_of(app, "/static/a.txt") == "/static/{path}"
    assert await endpoint_of(app, "/static/missing/b.txt") == "/static/{path}"
    assert await endpoint_of(app, "/a.txt") == "/{path}"


async def test_the_server_root_path_is_no_part_and_mounts_are(endpoint_of: Ask) -> None:
    app = Starlette(routes=[Mount("/t/{tenant}", routes=[Route("/a", page)]), Route("/b", page)])

    for path, root_path in (("/behind/t/x/a", "/behind"), ("/t/x/a", "")):
        assert await endpoint_of(app, path, root_path=root_path) == "/t/{tenant}/a"
    assert await endpoint_of(app, "/behind/b", root_path="/behind") == "/b"


async def test_a_redirect_and_a_preflight_have_matched_nothing(endpoint_of: Ask) -> None:
    app = Starlette(
        routes=[Route("/a/", page), Mount("/m", routes=[Route("/b", page)])],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"])],
    )
    preflight = [(b"host", b"x"), (b"origin", b"https://o"), (b"access-control-request-method", b"GET")]

    assert await endpoint_of(app, "/a") is None
    assert await endpoint_of(app, "/m/b/") is None
    assert await endpoint_of(app, "/a/", "OPTIONS", headers=preflight) is None


async def test_a_method_that_is_not_allowed_keeps_the_template(endpoint_of: Ask) -> None:
    class Resource(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("page")

    app = Starlette(routes=[Route("/a/{b}", page), Mount("/m", routes=[Route("/r/{c}", Resource)])])

    assert await endpoint_of(app, "/a/1", "POST") == "/a/{b}"
    assert await endpoint_of(app, "/m/r/1", "DELETE") == "/m/r/{c}"
    assert await endpoint_of(app, "/m/r/1") == "/m/r/{c}"


async def test_middleware_in_between_changes_nothing(endpoint_of: Ask) -> None:
    async def dispatch(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    inner = Starlette(
        routes=[Route("/a/{b}", page)],
        middleware=[Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
    )
    app = Starlette(
        routes=[
            Mount("/one", inner, middleware=[Middleware(GZipMiddleware)]),
            Mount("/two", GZipMiddleware(inner)),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
    )

    assert await endpoint_of(app, "/one/a/1") == "/one/a/{b}"
    assert await endpoint_of(app, "/two/a/1") == "/two/a/{b}"


@pytest.mark.newest  # Starlette leaves the route in the scope from 1.7 on
async def test_a_mount_that_hides_its_routes(endpoint_of: Ask) -> None:
    inner = Starlette(routes=[Route("/a/{b}", page)])

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    app = Starlette(routes=[Mount("/t/{tenant}", hidden)])

    assert await endpoint_of(app, "/t/acme/a/1") == "/t/{tenant}/a/{b}"
    assert await endpoint_of(app, "/t/acme/nowhere") == "/t/{tenant}/{path}"


async def test_routes_that_come_later_are_found(analytics: CapturedEvents, endpoint_of: Ask) -> None:
    inner = Router([Route("/a", page)])
    starlette = Starlette(routes=[Mount("/m", inner)])
    app = AnalyticsMiddleware(starlette, client=analytics.client)

    assert await endpoint_of(app, "/m/a") == "/m/a"
    inner.routes.append(Route("/late/{x}", page))
    assert await endpoint_of(app, "/m/late/1") == "/m/late/{x}"
    starlette.router.routes.insert(0, Mount("/n/{y}", inner))
    assert await endpoint_of(app, "/n/1/late/1") == "/n/{y}/late/{x}"
    assert await endpoint_of(app, "/m/late/1") == "/m/late/{x}"
    inner.routes[1] = Route("/later/{z}", page)
    assert await endpoint_of(app, "/m/later/1") == "/m/later/{z}"


async def test_included_routers_of_fastapi(endpoint_of: Ask) -> None:
    items, shops, sub = APIRouter(), APIRouter(prefix="/shops/{shop}"), FastAPI()

    @items.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @sub.get("/s/{t}")
    async def s(t: str) -> str:
        return t

    shops.include_router(items)
    items.mount("/files", PlainTextResponse("opaque"))
    app = FastAPI()
    app.include_router(shops, prefix="/v1")
    app.include_router(items, prefix="/v2")
    app.include_router(items)
    app.mount("/sub/{u}", sub)

    assert await endpoint_of(app, "/v1/shops/a/items/1") == "/v1/shops/{shop}/items/{item}"
    assert await endpoint_of(app, "/v2/items/1") == "/v2/items/{item}"
    assert await endpoint_of(app, "/items/1") == "/items/{item}"
    assert await endpoint_of(app, "/items/x") == "/items/{item}"
    assert await endpoint_of(app, "/v2/items/1", "POST") == "/v2/items/{item}"
    assert await endpoint_of(app, "/sub/1/s/2") == "/sub/{u}/s/{t}"
    assert await endpoint_of(app, "/sub/1/nowhere") is None
    assert await endpoint_of(app, "/docs") == "/docs"
    assert await endpoint_of(app, "/sub/1/docs") == "/sub/{u}/docs"
    assert await endpoint_of(app, "/openapi.json") == "/openapi.json"


async def test_a_route_of_somebody_elses_making_is_no_exception(endpoint_of: Ask) -> None:
    class Odd(BaseRoute):
        def matches(self, scope: Any) -> Any:
            return (Match.FULL, {"endpoint": self}) if scope["path"] == "/odd/1" else (Match.NONE, {})

        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("odd")(scope, receive, send)

    app = Starlette(routes=[Odd(), Route("/a", page)])

    assert await endpoint_of(app, "/odd/1") is None
    assert await endpoint_of(app, "/a") == "/a"


async def test_a_warm_table_does_not_walk_the_tree(
    analytics: CapturedEvents, endpoint_of: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Starlette(routes=[Route(f"/r{n}/{{x}}", page) for n in range(200)])
    app = AnalyticsMiddleware(
        Starlette(routes=[Mount("/a", inner), Mount("/b", inner), Route("/c", page)]), client=analytics.client
    )
    await endpoint_of(app, "/a/r7/1")
    built: list[int] = []
    monkeypatch.setattr(RouteTable, "_build", lambda self: built.append(1))

    for path in ("/a/r199/1", "/b/r3/1", "/c", "/a/nowhere", "/nowhere", "/a/r0/"):
        await endpoint_of(app, path)

    assert built == []


def _raising(scope: Any) -> str | None:
    raise LookupError("no name for this one")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [(lambda scope: "named", "named"), (lambda scope: None, "/a/{b}"), (_raising, "/a/{b}")],
)
async def test_a_function_that_does_not_know_the_endpoint_leaves_it_to_the_framework(
    analytics: CapturedEvents, endpoint_of: Ask, endpoint: Callable[[Any], str | None], expected: str
) -> None:
    app = Starlette(routes=[Route("/a/{b}", page)])
    assert await endpoint_of(AnalyticsMiddleware(app, client=analytics.client, endpoint=endpoint), "/a/1") == expected


async def test_a_route_mounted_as_an_application_has_its_template_and_costs_no_other_its_own(endpoint_of: Ask) -> None:
    app = Starlette(
        routes=[
            Mount("/x", app=Route("/a/{b}", page)),
            Mount("/y", app=Mount("/z", app=Route("/q", page))),
            Mount("/h", app=Host("testserver", app=Router([Route("/i/{j}", page)]))),
            Route("/p/{q}", page),
        ]
    )

    assert await endpoint_of(app, "/x/a/1") == "/x/a/{b}"
    assert await endpoint_of(app, "/x/b") is None
    assert await endpoint_of(app, "/y/z/q") == "/y/z/q"
    assert await endpoint_of(app, "/h/i/1", headers=[(b"host", b"testserver")]) == "/h/i/{j}"
    assert await endpoint_of(app, "/p/1") == "/p/{q}"


async def test_a_route_that_cannot_be_read_costs_no_other_its_template(endpoint_of: Ask) -> None:
    class Unreadable(BaseRoute):
        @property
        def path_format(self) -> str:
            raise ValueError("not now")

        def matches(self, scope: Any) -> tuple[Match, Any]:
            return Match.NONE, {}

    app = Starlette(routes=[Unreadable(), Route("/p/{q}", page), Mount("/m", routes=[Unreadable(), Route("/r", page)])])

    assert await endpoint_of(app, "/p/1") == "/p/{q}"
    assert await endpoint_of(app, "/m/r") == "/m/r"


async def test_a_single_route_or_mount_can_be_the_whole_application(endpoint_of: Ask) -> None:
    routed = Mount("/x/{y}", app=Router([Route("/a/{b}", page)]))

    assert await endpoint_of(Route("/a/{b}", page), "/a/1") == "/a/{b}"
    assert await endpoint_of(Route("/a/{b}", page), "/nowhere") is None
    assert await endpoint_of(routed, "/x/1/a/1") == "/x/{y}/a/{b}"
    assert await endpoint_of(GZipMiddleware(routed), "/x/1/a/1") == "/x/{y}/a/{b}"
    assert await endpoint_of(Mount("/x", app=Route("/a/{b}", page)), "/x/a/1") == "/x/a/{b}"


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this release of FastAPI has no frontend()")
async def test_the_files_of_a_frontend_have_one_template(endpoint_of: Ask, tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("a")
    app = FastAPI()
    app.add_api_route("/api/{x}", lambda x: x)
    app.frontend("/web", directory=tmp_path)
    mounting = Starlette(routes=[Mount("/t/{tenant}", app)])

    assert await endpoint_of(app, "/api/1") == "/api/{x}"
    assert await endpoint_of(app, "/web/app.js") == "/web/{path}"
    assert await endpoint_of(app, "/web/missing.js") == "/web/{path}"
    assert await endpoint_of(app, "/nowhere") is None
    assert await endpoint_of(mounting, "/t/acme/web/app.js") == "/t/{tenant}/web/{path}"
    assert await endpoint_of(mounting, "/t/acme/api/1") == "/t/{tenant}/api/{x}"
