"""The endpoints of the dashboard: pages, the login, what the pages are drawn with, and the rows as CSV."""

from __future__ import annotations

import asyncio
import hashlib
import time
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from asgi_analytics.errors import InvalidQuery, ReadError
from asgi_analytics.reading import QUESTIONS
from asgi_analytics.values import KIB
from asgi_analytics.web.access import request_log
from asgi_analytics.web.api.caller import Caller, Left
from asgi_analytics.web.api.endpoints import ApiService, QuestionEndpoint
from asgi_analytics.web.api.formats import MEDIA_TYPES as MEDIA_TYPES_OF_ROWS
from asgi_analytics.web.api.formats import lines
from asgi_analytics.web.api.parameters import refuse_long
from asgi_analytics.web.api.refusals import Refusal, refusal
from asgi_analytics.web.dashboard import figures
from asgi_analytics.web.dashboard.admission import Admission, require_same_origin
from asgi_analytics.web.dashboard.asking import Away, Page, gather
from asgi_analytics.web.dashboard.pages import PAGES, funnels
from asgi_analytics.web.dashboard.panels import Chart, Note, Table, rows_of, with_csv
from asgi_analytics.web.dashboard.view import RANGES, SHARED, View
from asgi_analytics.web.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from asgi_analytics.web.dashboard.panels import Panel

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOREVER = "public, max-age=31536000, immutable"
"""Of files whose path changes with their content."""
MOST_FORM = 64 * KIB
FAILED = Problem(500, "something failed here; the log of the service says what")
MEDIA_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

ZONES = ("UTC", "Europe/London", "Europe/Berlin", "America/New_York", "America/Los_Angeles", "Asia/Kolkata",
         "Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney")  # fmt: skip
"""Time zones that are offered; any other can be typed."""


def _files() -> dict[str, bytes]:
    root = resources.files(__package__) / "static"
    found = {one.name: one.read_bytes() for one in root.iterdir() if one.is_file()}
    return found | {f"panels/{one.name}": one.read_bytes() for one in (root / "panels").iterdir() if one.is_file()}


class DashboardService:
    """The endpoints, and what they share."""

    def __init__(self, api: ApiService, admission: Admission) -> None:
        self.api = api
        self.admission = admission
        reading = [one for one in QUESTIONS.values() if not one.changes and hasattr(api.reader, one.name)]
        self.endpoints = {one.name: QuestionEndpoint(api, one) for one in reading}
        self.files = _files()
        self.digest = hashlib.sha256(b"".join(self.files[name] for name in sorted(self.files))).hexdigest()[:12]
        self.templates = Environment(
            loader=PackageLoader(__package__, "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {
            "count": figures.count,
            "duration": figures.duration,
            "percent": figures.percent,
            "moment": figures.moment,
        }

    def routes(self) -> list[BaseRoute]:
        """Return all routes."""
        # Else {fingerprint} would stand for what has a route of its own.
        questions = sorted(self.endpoints.values(), key=lambda one: "{" in one.question.path)
        gets = [one for one in questions if one.question.method == "GET"]
        return [
            *(Route(f"/data{one.question.path}", Guarded(self, one), methods=["GET"]) for one in gets),
            Route("/static/{digest}/{name:path}", self.static, methods=["GET"]),
            Route("/login", self.log_in, methods=["POST"]),
            Route("/logout", self.log_out, methods=["POST"]),
            Route("/funnels", self.change, methods=["POST"]),
            Route("/{page:path}", self.page, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """Answer with a page, or with the login."""
        name = request.path_params["page"].lstrip("/")
        if not request.scope["path"].endswith("/") and not name:
            # Relative, since only the browser knows the whole path.
            return self._redirect(request.scope["path"].rpartition("/")[2] + "/")
        page = next((one for one in PAGES if one.path == name), None)
        request_log(request, f"/{name}" if page is not None else "-")
        verdict = await self.admission.judge(request)
        if verdict != "seen":
            return self._not_seen(request, verdict)
        if page is None:
            text = "Choose one of the pages of the menu."
            return self._show(request, None, [Note(title="There is no such page", text=text, is_error=True)], 404)
        refuse_long(request.scope.get("raw_path") or b"", request.scope["query_string"])
        started = time.perf_counter()
        try:
            view = View.read(page.path, request.scope["query_string"], self.api.reader, self.api.reader.now())
        except InvalidQuery as error:
            text = f"{error.field}: {error.expected}"
            return self._show(request, None, [Note(title="This cannot be shown", text=text, is_error=True)], 422)
        may_change = self.admission.may_change(request)
        asked = Page(
            view, self.endpoints, may_change=may_change, asks_token=self.admission.has_changes and not may_change
        )
        status = 200
        wanted = view.text("csv")
        parts = page.parts(asked)
        if any(part.title == wanted for part in parts):  # else a part makes several panels, and it is one of these
            parts = [part for part in parts if part.is_wanted(wanted)]
        try:
            async with Caller(request.receive) as caller:
                panels: Sequence[Panel] = await caller.wait(gather(parts))
        except Away as away:
            panels, status = [Note(title=away.title, text=away.text, is_error=True)], 503
        except Left:
            return Response(status_code=499)
        if wanted:
            return self._csv(request, wanted, panels)
        panels = [with_csv(panel, view.csv_of(panel.title)) for panel in panels]
        took = (time.perf_counter() - started) * 1000
        return self._show(request, view, panels, status, {"Server-Timing": f"questions;dur={took:.1f}"})

    async def log_in(self, request: Request) -> Response:
        """Take the token of the login page."""
        request_log(request, "/login")
        require_same_origin(request.headers)
        form = await _form(request)
        if not self.admission.accepts(form.get("token", "")):
            await asyncio.sleep(0.5)  # against many guesses
            return self._login(form.get("next", ""), "The token is not accepted.")
        response = self._redirect(self._own(form.get("next", "")))
        self.admission.keep(request, response, form["token"])
        return response

    async def log_out(self, request: Request) -> Response:
        """Forget the token."""
        request_log(request, "/logout")
        require_same_origin(request.headers)
        response = self._redirect("./")
        self.admission.forget(response)
        return response

    async def change(self, request: Request) -> Response:
        """Keep or delete a funnel."""
        request_log(request, "/funnels")
        verdict = await self.admission.judge(request)
        if verdict != "seen":
            return self._not_seen(request, verdict)
        require_same_origin(request.headers)
        form = await _form(request)
        if not self.admission.may_change(request, form.get("token", "")):
            raise Problem(403, "to keep or delete a funnel takes a token that may change what is kept")
        try:
            question, arguments, target = funnels.changed(form)
            await self.api.change(QUESTIONS[question], arguments)
        except InvalidQuery as error:
            raise Problem(422, f"{error.field}: {error.expected}") from None
        except ReadError as error:
            raise refusal(error) from None
        return self._redirect(target)

    async def static(self, request: Request) -> Response:
        """Answer with a file that the pages are drawn with; anyone may have it."""
        request_log(request, "/static")
        name = request.path_params["name"]
        if name not in self.files or request.path_params["digest"] != self.digest:
            raise Problem(404, "there is no such file")
        kind = MEDIA_TYPES.get(name.rpartition(".")[2], "text/plain")
        headers = {**HEADERS, "Cache-Control": FOREVER}
        return Response(self.files[name], 200, headers, f"{kind}; charset=utf-8")

    def respond(self, problem: Problem) -> Response:
        """Return the page for what is refused."""
        title = {404: "There is no such page", 405: "This cannot be done here"}.get(problem.status, "Not done")
        if isinstance(problem, Refusal) and problem.code == "unauthorized":
            title = "Log in"
        note = Note(title=title, text=problem.detail, is_error=True)
        return self._render("refused.html", problem.status, {"note": note}, problem.headers)

    def _not_seen(self, request: Request, verdict: str) -> Response:
        if verdict == "login":
            page = request.path_params.get("page", "").lstrip("/")
            query = request.scope["query_string"].decode("latin-1")
            return self._login(f"{page}?{query}" if query else page, "")
        text = (
            "The application that serves this dashboard does not let you see it: log in there, or open it from the "
            "machine itself, if it is meant for that one only."
        )
        return self._render(
            "refused.html", 403, {"note": Note(title="This is not for you to see", text=text, is_error=True)}
        )

    def _login(self, target: str, problem: str) -> Response:
        return self._render("login.html", 401, {"next": target, "problem": problem})

    def _show(
        self,
        request: Request,
        view: View | None,
        panels: Sequence[Panel],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        if view is None:
            now = self.api.reader.now()
            view = View.read("", b"", self.api.reader, now)
            current = None
        else:
            current = next(one for one in PAGES if one.path == view.page)
        own = [(name, text) for name, texts in view.given.items() if name not in SHARED for text in texts]
        content = {
            "view": view,
            "page": current,
            "pages": [one for one in PAGES if one.title],
            "panels": panels,
            "own": own,
            "ranges": RANGES,
            "zones": ZONES,
            "has_login": self.admission.has_login,
        }
        return self._render("page.html", status, content, headers)

    def _render(
        self, template: str, status: int, content: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> Response:
        text = self.templates.get_template(template).render(static=f"./static/{self.digest}", **content)
        return Response(text, status, {**HEADERS, "Cache-Control": "no-store", **(headers or {})}, "text/html")

    def _csv(self, request: Request, wanted: str, panels: Sequence[Panel]) -> Response:
        for panel in panels:
            if panel.title == wanted and isinstance(panel, Table | Chart):
                headers = {**HEADERS, "Cache-Control": "no-store", "Content-Disposition": "attachment"}
                return Response(lines(rows_of(panel)), 200, headers, MEDIA_TYPES_OF_ROWS["csv"])
        nothing = Note(title="There is nothing to save", text="Load the page again.", is_error=True)
        return self._show(request, None, panels or [nothing], 404)

    def _own(self, target: str) -> str:
        """Return a target if it is a page of ours, else the first one."""
        page, _, query = target.partition("?")
        if page not in {one.path for one in PAGES} or not query.isascii() or not query.isprintable():
            return "./"
        return f"./{target}"

    def _redirect(self, target: str) -> Response:
        return RedirectResponse(target, 303, {**HEADERS, "Cache-Control": "no-store"})


class Guarded:
    """The rows of a question, for those who may see the dashboard."""

    def __init__(self, service: DashboardService, endpoint: QuestionEndpoint) -> None:
        self.service = service
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if await self.service.admission.judge(request) != "seen":
            raise Problem(401 if self.service.admission.has_login else 403, "log in to the dashboard first")

        async def private(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].lower() not in (b"cache-control", b"vary")]
                message = {**message, "headers": [*kept, (b"cache-control", b"no-store")]}
            await send(message)

        await self.endpoint(scope, receive, private)


async def _form(request: Request) -> Any:
    parts, size = [], 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > MOST_FORM:
                raise Problem(413, f"the form has more than {MOST_FORM} bytes")
    except ClientDisconnect:
        raise Problem(400, "the form ends before its end") from None
    try:
        return dict(parse_qsl(b"".join(parts).decode("ascii"), errors="strict", max_num_fields=256))
    except ValueError:
        raise Problem(422, "the form must be UTF-8, percent-encoded") from None
