"""Who may see the dashboard, how one logs in, and what a browser is told about every page."""

from __future__ import annotations

import gzip
import hashlib
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_analytics.errors import ConfigError
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.web.api import create_api_app
from asgi_analytics.web.dashboard import create_dashboard_app, join
from asgi_analytics.web.dashboard.admission import COOKIE
from asgi_analytics.web.dashboard.endpoints import POLICY
from asgi_analytics.web.dashboard.pages import PAGES

POLICY_OF_THE_CONTRACT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# Of dist/uPlot.iife.min.js and dist/uPlot.min.css in the package uplot 1.6.32 of npm.
UPLOT = {
    "uplot-1.6.32.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot-1.6.32.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def reader() -> AnalyticsReader:
    """Give a reader whose database is away."""
    return AnalyticsReader.from_url("postgresql://app:s3cret@127.0.0.1:1/shop")


def client(app: Any, host: str = "127.0.0.1", peer: str = "127.0.0.1") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app, client=(peer, 4000))
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.mark.parametrize("authorize", [None, "", [], [""], 7, ["with space"]])
def test_without_an_answer_to_who_may_see_it_it_refuses_to_start(reader: AnalyticsReader, authorize: Any) -> None:
    with pytest.raises(ConfigError):
        create_dashboard_app(reader, authorize=authorize)
    with pytest.raises(ConfigError, match="AnalyticsReader"):
        create_dashboard_app("postgresql://…", authorize="t0ken")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "peer", "headers", "status"),
    [
        ("127.0.0.1:8093", "127.0.0.1", {}, 503),
        ("localhost", "::1", {}, 503),
        ("127.0.0.1", "10.0.0.7", {}, 403),
        ("evil.example", "127.0.0.1", {}, 403),  # a name of somebody else that leads here
        ("127.0.0.1", "127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 403),
    ],
)
async def test_loopback_is_this_machine_by_its_own_name_and_without_a_proxy(
    reader: AnalyticsReader, host: str, peer: str, headers: dict[str, str], status: int
) -> None:
    async with client(create_dashboard_app(reader, authorize="loopback"), host, peer) as http:
        answer = await http.get("/", headers=headers)
        assert answer.status_code == status
        assert (await http.get("/data/events", headers=headers)).status_code == status


async def test_a_callable_decides_by_the_scope_and_only_true_is_yes(reader: AnalyticsReader) -> None:
    async def later(scope: Any) -> bool:
        return dict(scope["headers"]).get(b"x-staff") == b"yes"

    async with client(create_dashboard_app(reader, authorize=later)) as http:
        assert (await http.get("/events")).status_code == 403
        assert (await http.get("/events", headers={"x-staff": "yes"})).status_code == 503
    async with client(create_dashboard_app(reader, authorize=lambda scope: "no")) as http:  # type: ignore[arg-type]
        assert (await http.get("/events")).status_code == 403


async def test_the_login_keeps_the_token_in_a_cookie_of_the_mount(reader: AnalyticsReader) -> None:
    app = Starlette(routes=[Mount("/a/b", app=create_dashboard_app(reader, authorize=["old", "t0k/en=%"]))])
    async with client(app) as http:
        page = await http.get("/a/b/errors?range=30d")
        assert page.status_code == 401
        assert 'name="next" value="errors?range=30d"' in page.text
        assert (await http.get("/a/b/data/events")).status_code == 401

        wrong = await http.post("/a/b/login", data={"token": "wrong"}, headers=SAME_ORIGIN)
        assert (wrong.status_code, wrong.headers.get("set-cookie")) == (401, None)
        assert "wrong" not in wrong.text.replace("was wrong", "")

        form = {"token": "t0k/en=%", "next": "errors?range=30d"}
        right = await http.post("/a/b/login", data=form, headers=SAME_ORIGIN)
        assert (right.status_code, right.headers["location"]) == (303, "./errors?range=30d")
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "path=" not in cookie  # the browser takes the folder of the page, /a/b
        assert "secure" not in cookie
        value = http.cookies[COOKIE]
        http.cookies.clear()

        kept = {"cookie": f"{COOKIE}={value}"}
        assert (await http.get("/a/b/", headers=kept)).status_code == 503  # seen, and the database is away
        assert (await http.get("/a/b/", headers={"cookie": f"{COOKIE}=other"})).status_code == 401
        assert (await http.get("/a/b/", headers={"authorization": "Bearer old"})).status_code == 503
        out = await http.post("/a/b/logout", headers={**kept, **SAME_ORIGIN})
        assert "max-age=0" in out.headers["set-cookie"].lower()


async def test_the_cookie_is_secure_where_the_page_is(reader: AnalyticsReader) -> None:
    transport = httpx2.ASGITransport(create_dashboard_app(reader, authorize="t"))
    async with httpx2.AsyncClient(transport=transport, base_url="https://shop.example") as http:
        answer = await http.post("/login", data={"token": "t"}, headers={"origin": "https://shop.example"})
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_behind_a_proxy_that_says_little_the_login_works_and_is_secure(reader: AnalyticsReader) -> None:
    async with client(create_dashboard_app(reader, authorize="t"), "shop.example") as http:
        for headers, status in [
            ({"origin": "http://shop.example"}, 303),
            ({"origin": "https://shop.example"}, 303),  # TLS ends before, and nothing is forwarded
            ({"origin": "https://shop.example:8443"}, 303),  # nginx's $host has no port
            ({"origin": "https://shop.example:8443", "host": "api:8093", "x-forwarded-host": "shop.example:8443"}, 303),
            ({"origin": "https://shop.example:8443", "host": "api:8093"}, 403),
            ({"origin": "https://evil.example", "x-forwarded-host": "shop.example"}, 403),
            ({"origin": "https://shop.example:8443", "host": "shop.example:8444"}, 403),
        ]:
            answer = await http.post("/login", data={"token": "t"}, headers=headers)
            assert answer.status_code == status, headers
            is_secure = "secure" in answer.headers.get("set-cookie", "").lower()
            assert is_secure == (status == 303 and headers["origin"].startswith("https:"))
            assert status == 303 or "pass the Host header on" in answer.text


async def test_what_nginx_passes_on_with_no_more_said_is_not_loopback(reader: AnalyticsReader) -> None:
    """It speaks HTTP/1.0, and names the service behind it instead of itself."""
    app = create_dashboard_app(reader, authorize="loopback")

    async def as_nginx(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "http_version": "1.0"}, receive, send)

    async with client(as_nginx) as http:
        assert (await http.get("/")).status_code == 403


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "../x", "errors\r\nX: y", "nothing"])
async def test_the_login_leads_to_pages_of_its_own_only(reader: AnalyticsReader, target: str) -> None:
    async with client(create_dashboard_app(reader, authorize="t")) as http:
        answer = await http.post("/login", data={"token": "t", "next": target}, headers=SAME_ORIGIN)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")


@pytest.mark.parametrize("path", ["/login", "/logout", "/funnels"])
@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "none"},
     {"origin": "https://evil.example"}, {"origin": "null"}],
)  # fmt: skip
async def test_a_form_of_another_page_is_refused(reader: AnalyticsReader, path: str, headers: dict[str, str]) -> None:
    async with client(create_dashboard_app(reader, authorize="t", change_tokens=["t"])) as http:
        form = {"token": "t", "name": "x", "action": "delete"}
        answer = await http.post(path, data=form, headers={**headers, "authorization": "Bearer t"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_who_may_read_may_not_change(reader: AnalyticsReader) -> None:
    form = {"name": "x", "action": "delete"}
    async with client(create_dashboard_app(reader, authorize="t", change_tokens=["c"])) as http:
        for headers, token, status in [
            ({}, "c", 401), ({"authorization": "Bearer t"}, "", 403), ({"authorization": "Bearer t"}, "wrong", 403),
            ({"authorization": "Bearer c"}, "c", 401), ({"authorization": "Bearer t"}, "c", 503),
        ]:  # fmt: skip
            answer = await http.post("/funnels", data={**form, "token": token}, headers={**headers, **SAME_ORIGIN})
            assert answer.status_code == status
    async with client(create_dashboard_app(reader, authorize="t")) as http:
        answer = await http.post(
            "/funnels", data={**form, "token": "t"}, headers={"authorization": "Bearer t", **SAME_ORIGIN}
        )
        assert answer.status_code == 403


async def test_every_answer_has_the_policy_and_no_page_is_kept(reader: AnalyticsReader) -> None:
    assert POLICY == POLICY_OF_THE_CONTRACT
    app = create_dashboard_app(reader, authorize="t")
    static = f"/static/{app.state.dashboard.digest}/dashboard.js"
    async with client(app) as http:
        for headers in ({}, {"authorization": "Bearer t"}):
            for path in ["/" + page.path for page in PAGES] + ["/nothing", "/data/events", static, "/static/x/y"]:
                answer = await http.get(path, headers=headers)
                assert answer.headers["content-security-policy"] in (
                    POLICY, "default-src 'none'; frame-ancestors 'none'"
                )  # fmt: skip
                assert answer.headers["x-content-type-options"] == "nosniff"
                wanted = "public, max-age=31536000, immutable" if path == static else "no-store"
                assert answer.headers["cache-control"] == wanted, path
                assert "s3cret" not in answer.text


async def test_a_database_that_is_away_is_said_with_what_to_do(reader: AnalyticsReader) -> None:
    async with client(create_dashboard_app(reader, authorize="loopback")) as http:
        for page in PAGES:
            answer = await http.get(f"/{page.path}?user_id=1")
            assert answer.status_code == 503
            assert "The database cannot be reached" in answer.text
            assert "correct the database URL" in answer.text


@pytest.mark.parametrize(
    "query", ["timezone=Mars", "range=forever", "range=custom&start=x&end=y", "range=custom", "start=%ff", "a=1&" * 300]
)
async def test_a_wrong_range_is_a_page_that_says_so(reader: AnalyticsReader, query: str) -> None:
    async with client(create_dashboard_app(reader, authorize="loopback")) as http:
        answer = await http.get(f"/?{query}")
        assert answer.status_code == 422
        assert "This cannot be shown" in answer.text


def test_all_files_together_are_small_and_name_no_other_host(reader: AnalyticsReader) -> None:
    files = create_dashboard_app(reader, authorize="t").state.dashboard.files
    assert sum(len(gzip.compress(content)) for content in files.values()) <= 120 * 1024
    for name, content in files.items():
        if not name.startswith("uplot"):
            assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b""), name
            for word in (b"innerHTML", b"eval(", b"insertAdjacentHTML", b"document.write"):
                assert word not in content


def test_uplot_is_the_one_of_its_makers(reader: AnalyticsReader) -> None:
    files = create_dashboard_app(reader, authorize="t").state.dashboard.files
    for name, digest in UPLOT.items():
        assert hashlib.sha256(files[name]).hexdigest() == digest
    assert b"MIT" in files["uplot-LICENSE"]


async def test_the_command_serves_it_beside_the_api(reader: AnalyticsReader) -> None:
    api = create_api_app(reader, tokens=["t"])
    app = join(api, create_dashboard_app(reader, authorize=["t"], answers=api.state.api.answers))
    async with client(app) as http:
        for path in ("/", "/ui"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["location"]) == (307, "ui/")
        assert (await http.get("/ui/")).status_code == 401
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/api/analytics/health")).json() == {"status": "ok"}
        assert (await http.get("/api/analytics/overview")).status_code == 401
        assert (await http.get("/nothing")).json()["code"] == "not_found"
        assert (await http.get("/api/analytics/users/a%0Ab/activity")).json()["code"] == "unauthorized"
